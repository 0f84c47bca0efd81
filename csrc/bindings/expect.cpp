// benchrouter._core.Expectation and expect: checks arguments, releases the GIL, calls the kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "bindings/inputs.hpp"
#include "scores/learnt.hpp"

namespace benchrouter {
namespace {

// What the rule `auto` learnt, in arrays that were checked once and are kept alive. Datasets are
// copied: they are places in memory, whatever becomes of the caller's array.
class Learnt {
public:
    Learnt(const py::object& dataset, const py::object& own_distance, const py::object& standing,
           const py::object& share, const Pair& apart, const Pair& level,
           const py::object& of_dataset, const py::object& linear, const py::object& offset,
           const std::array<double, 4>& gate, const Pair& margin, const Pair& tolerance)
        : kept_(py::make_tuple(own_distance, standing, share, of_dataset, linear, offset)),
          arrays_{read<int32_t, 1>(dataset, "dataset"),
                  read<float, 1>(own_distance, "own_distance"),
                  read<double, 1>(standing, "standing"),
                  read<double, 1>(share, "share"),
                  read<float, 2>(of_dataset, "of_dataset"),
                  read<float, 2>(linear, "linear"),
                  read<double, 1>(offset, "offset")} {
        datasets_.assign(arrays_.dataset.data, arrays_.dataset.data + arrays_.records());
        arrays_.dataset.data = datasets_.data();
        learnt_ = checked_expectation(arrays_, {apart, level, gate, margin, tolerance});
        const int64_t records = arrays_.records(), models = arrays_.models();
        for (int64_t i = 0; i < records; ++i) {
            const float own = arrays_.own_distance.data[i];
            if (datasets_[i] < 0 || datasets_[i] >= learnt_.datasets) {
                refuse_value("dataset must be in [0, " + std::to_string(learnt_.datasets) +
                             "), got " + std::to_string(datasets_[i]) + " at [" +
                             std::to_string(i) + "]");
            }
            if (!(own >= 0.0f && std::isfinite(own))) {
                refuse_value("own_distance must be finite and at least 0, got " + number(own) +
                             " at [" + std::to_string(i) + "]");
            }
        }
        check_finite("standing", learnt_.standing, models);
        check_finite("share", learnt_.share, models);
        check_finite("offset", learnt_.offset, 2 * learnt_.width);
        check_finite("of_dataset", learnt_.of_dataset, learnt_.datasets, 2 * learnt_.width);
        check_finite("linear", learnt_.linear, learnt_.dim, 2 * learnt_.width);
    }
    Learnt(const Learnt&) = delete;
    Learnt& operator=(const Learnt&) = delete;
    Expectation with(const float* queries, int64_t home) const {
        Expectation learnt = learnt_;
        learnt.queries = queries;
        learnt.home = home;
        return learnt;
    }
    const LearntArrays& arrays() const { return arrays_; }

private:
    py::tuple kept_;
    LearntArrays arrays_;
    std::vector<int32_t> datasets_;
    Expectation learnt_{};
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
    check_learnt(learnt.arrays(), in.ballots.records, models, home);
    const auto queries_view = read<float, 2>(queries, "queries");
    expect_shape(queries_view, {in.queries(), learnt.arrays().dim()}, "(queries, dim)");
    const auto similarities_view = read<float, 2>(similarities, "similarities");
    expect_shape(similarities_view, in.neighbours.shape, "as neighbours");
    const auto preference_view = read<int32_t, 1>(preference, "preference");
    order_of(preference_view, models);
    checked_columns("kappa", kappa, in.ballots.columns, INT64_MAX);
    check_decision("mean", false, 0.0, distance_limit, fallback_model, models);
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
    for (const Extent& held : learnt.arrays().extents()) inputs.push_back(held);
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
        fault = expect(in.ballots, decision, learnt.with(queries_view.data, home), expected, run);
    }
    if (fault.kind == FaultKind::query) {
        refuse_value("queries must be finite, got " +
                     number(queries_view.data[fault.row * learnt.arrays().dim() + fault.column]) +
                     " at [" + std::to_string(fault.row) + ", " + std::to_string(fault.column) +
                     "]");
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
