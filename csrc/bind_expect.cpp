// benchrouter._core.Expectation and expect: checks arguments, releases the GIL, calls the kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>

#include "bindings.hpp"
#include "checks.hpp"
#include "inputs.hpp"

namespace benchrouter {
namespace {

using Pair = std::array<double, 2>;

// Expectation::width must be whole groups of this many float32.
constexpr int64_t kColumns = 16;

void check_finite(const char* name, const double* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        if (!std::isfinite(values[i])) {
            refuse_value(std::string(name) + " must be finite, got " + number(values[i]) + " at [" +
                         std::to_string(i) + "]");
        }
    }
}

void check_pair(const char* name, const Pair& values) {
    for (int i = 0; i < 2; ++i) {
        if (!(values[i] >= 0.0)) {
            refuse_value(std::string(name) + " must be at least 0, got " + number(values[i]) +
                         " at [" + std::to_string(i) + "]");
        }
    }
}

// What the rule `auto` learnt, in arrays that were checked once and are kept alive.
class Learnt {
public:
    Learnt(const py::object& dataset, const py::object& own_distance, const py::object& standing,
           const py::object& share, const Pair& apart, const Pair& level,
           const py::object& of_dataset, const py::object& linear, const py::object& offset,
           const std::array<double, 4>& gate, const Pair& margin, const Pair& tolerance)
        : kept_(
              py::make_tuple(dataset, own_distance, standing, share, of_dataset, linear, offset)) {
        const auto codes = read<int32_t, 1>(dataset, "dataset");
        const auto own = read<float, 1>(own_distance, "own_distance");
        const auto standings = read<double, 1>(standing, "standing");
        const auto shares = read<double, 1>(share, "share");
        const auto tables = read<float, 2>(of_dataset, "of_dataset");
        const auto matrix = read<float, 2>(linear, "linear");
        const auto offsets = read<double, 1>(offset, "offset");
        records_ = codes.shape[0];
        models_ = standings.shape[0];
        const int64_t width = offsets.shape[0] / 2;
        if (offsets.shape[0] % (2 * kColumns) != 0 || width < models_) {
            refuse_value("offset must hold 2 × " + std::to_string(kColumns) +
                         "·n values, at least 2 × " + std::to_string(models_) + " models, got " +
                         std::to_string(offsets.shape[0]));
        }
        expect_length("own_distance", "values", own.shape[0], "dataset has", records_);
        expect_length("share", "values", shares.shape[0], "standing has", models_);
        expect_length("of_dataset", "columns", tables.shape[1], "offset has", 2 * width);
        expect_length("linear", "columns", matrix.shape[1], "offset has", 2 * width);
        for (int64_t i = 0; i < records_; ++i) {
            if (codes.data[i] < 0 || codes.data[i] >= tables.shape[0]) {
                refuse_value("dataset must be in [0, " + std::to_string(tables.shape[0]) +
                             "), got " + std::to_string(codes.data[i]) + " at [" +
                             std::to_string(i) + "]");
            }
        }
        check_finite("standing", standings.data, models_);
        check_finite("share", shares.data, models_);
        check_finite("offset", offsets.data, 2 * width);
        check_finite("apart", apart.data(), 2);
        check_finite("level", level.data(), 2);
        check_finite("gate", gate.data(), 4);
        check_pair("margin", margin);
        check_pair("tolerance", tolerance);
        learnt_ = {nullptr,
                   matrix.shape[0],
                   codes.data,
                   tables.shape[0],
                   own.data,
                   standings.data,
                   shares.data,
                   {apart[0], apart[1]},
                   {level[0], level[1]},
                   tables.data,
                   matrix.data,
                   offsets.data,
                   width,
                   {gate[0], gate[1], gate[2], gate[3]},
                   {margin[0], margin[1]},
                   {tolerance[0], tolerance[1]},
                   0};
    }
    Expectation with(const float* queries, int64_t home) const {
        Expectation learnt = learnt_;
        learnt.queries = queries;
        learnt.home = home;
        return learnt;
    }
    int64_t dim() const { return learnt_.dim; }
    int64_t records() const { return records_; }
    int64_t models() const { return models_; }

private:
    py::tuple kept_;
    Expectation learnt_{};
    int64_t records_ = 0, models_ = 0;
};

py::tuple expect_binding(const Learnt& learnt, const py::object& queries,
                         const py::object& neighbours, const py::object& similarities,
                         const py::object& bits, const py::object& present,
                         const py::object& scores, int64_t n_models, const py::object& prior,
                         const py::object& preference, const py::object& k, int64_t kappa,
                         double distance_limit, int64_t fallback_model, int64_t home,
                         const py::object& allowed, int64_t threads, const std::string& simd,
                         const py::object& out, const py::object& out_strange,
                         const py::object& out_scores) {
    const Inputs in =
        checked_inputs(neighbours, bits, present, scores, n_models, prior, k, 0.0, py::none());
    const int64_t models = in.models();
    if (models < 1) refuse_value("outcomes must have at least 1 model to decide, got 0");
    expect_length("standing", "values", learnt.models(), "outcomes has models:", models);
    expect_length("dataset", "values", learnt.records(),
                  "outcomes has records:", in.outcomes.records);
    const auto queries_view = read<float, 2>(queries, "queries");
    expect_shape(queries_view, {in.queries(), learnt.dim()}, "(queries, dim)");
    const auto similarities_view = read<float, 2>(similarities, "similarities");
    expect_shape(similarities_view, in.neighbours.shape, "as neighbours");
    const auto preference_view = read<int32_t, 1>(preference, "preference");
    order_of(preference_view, models);
    checked_columns("kappa", kappa, in.ballots.columns, INT64_MAX);
    check_decision("mean", false, 0.0, distance_limit, fallback_model, models);
    if (home < 0 || home >= models) {
        refuse_value("home must be in [0, " + std::to_string(models) + "), got " +
                     std::to_string(home));
    }
    const Allowed among = checked_allowed(allowed, models, fallback_model);
    if (among.view.data && !among.view.data[home])
        refuse_value("home must be a model allowed, got " + std::to_string(home));
    const Run run = checked_run(threads, simd);

    const ChosenArrays made = chosen_arrays(out, in.queries());
    const py::object strange_array =
        out_strange.is_none() ? py::object(py::array_t<float>({in.queries()})) : out_strange;
    const auto strange = write<float, 1>(strange_array, "out_strange");
    expect_shape(strange, {in.queries()}, "(queries,)");
    View<float, 2> scores_view;
    std::vector<Extent> outputs = made.extents;
    outputs.push_back(extent(strange));
    if (!out_scores.is_none()) {
        scores_view = write<float, 2>(out_scores, "out_scores");
        expect_shape(scores_view, {in.queries(), models}, "(queries, models)");
        outputs.push_back(extent(scores_view));
    }
    std::vector<Extent> inputs = in.extents();
    inputs.push_back(extent(queries_view));
    inputs.push_back(extent(similarities_view));
    inputs.push_back(extent(preference_view));
    inputs.push_back(extent(among.view));
    refuse_overlap(outputs, inputs);

    const Decision decision{Rule::mean,
                            similarities_view.data,
                            kappa,
                            preference_view.data,
                            nullptr,
                            0.0,
                            nullptr,
                            0.0,
                            1.0,
                            0,
                            distance_limit,
                            fallback_model,
                            among.view.data,
                            among.count};
    const Expected expected{made.chosen, strange.data, scores_view.data};
    Fault fault;
    {
        const py::gil_scoped_release released;
        fault = expect(in.ballots, in.outcomes, in.drawn, decision,
                       learnt.with(queries_view.data, home), expected, run);
    }
    refuse_fault(fault, in, similarities_view.data);
    return py::make_tuple(py::tuple(py::cast(made.arrays)), strange_array);
}

}  // namespace

void bind_expect(py::module_& module) {
    module.attr("expect_columns") = kColumns;
    py::class_<Learnt>(module, "Expectation", "What the rule `auto` learnt, checked once.")
        .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&,
                      const Pair&, const Pair&, const py::object&, const py::object&,
                      const py::object&, const std::array<double, 4>&, const Pair&, const Pair&>(),
             py::kw_only(), py::arg("dataset"), py::arg("own_distance"), py::arg("standing"),
             py::arg("share"), py::arg("apart"), py::arg("level"), py::arg("of_dataset"),
             py::arg("linear"), py::arg("offset"), py::arg("gate"), py::arg("margin"),
             py::arg("tolerance"));
    module.def("expect", &expect_binding, py::arg("learnt"), py::arg("queries"),
               py::arg("neighbours"), py::arg("similarities"), py::arg("bits"), py::arg("present"),
               py::arg("scores"), py::arg("n_models"), py::arg("prior"), py::arg("preference"),
               py::arg("k"), py::arg("kappa"), py::arg("distance_limit"), py::arg("fallback_model"),
               py::arg("home"), py::arg("allowed"), py::arg("threads"), py::arg("simd"),
               py::arg("out"), py::arg("out_strange"), py::arg("out_scores"));
}

}  // namespace benchrouter
