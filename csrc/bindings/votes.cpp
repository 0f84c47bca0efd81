// benchrouter._core: checks arguments, releases the GIL, calls the kernels, reports what they
// refused.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "bindings/inputs.hpp"

namespace benchrouter {
namespace {

std::string at(int64_t row, int64_t column) {
    return " at [" + std::to_string(row) + ", " + std::to_string(column) + "]";
}

const char* const kSimdNames[] = {"scalar", "avx2", "avx512"};

std::vector<std::string> simd_levels() {
    std::vector<std::string> levels;
    for (int level = 0; level <= static_cast<int>(widest_simd()); ++level)
        levels.push_back(kSimdNames[level]);
    return levels;
}

}  // namespace

Inputs checked_inputs(const py::handle& neighbours, const py::handle& bits,
                      const py::handle& present, const py::handle& scores, int64_t n_models,
                      const py::handle& prior, const py::object& k, double prior_weight,
                      const py::handle& weights) {
    Inputs in;
    in.neighbours = read<int64_t, 2>(neighbours, "neighbours");
    in.weights = read_optional<float, 2>(weights, "weights");
    in.prior = read<float, 1>(prior, "prior");
    if (bits.is_none() == scores.is_none())
        refuse_value("either bits or scores must be given, not both");
    if (bits.is_none()) {
        in.scores = read<float, 2>(scores, "outcomes");
        n_models = in.scores.shape[1];
    } else {
        in.bits = read<uint64_t, 2>(bits, "bits");
        in.present = read_optional<uint64_t, 2>(present, "present");
        check_words(n_models, in.bits.shape[1]);
        if (!present.is_none()) expect_shape(in.present, in.bits.shape, "as bits");
    }
    const int64_t columns = in.neighbours.shape[1];
    expect_length("prior", "values", in.prior.shape[0], "outcomes has models:", n_models);
    if (!weights.is_none()) expect_shape(in.weights, in.neighbours.shape, "as neighbours");
    check_prior_weight(prior_weight);
    for (int64_t m = 0; m < n_models; ++m) {
        if (!std::isfinite(in.prior.data[m])) {
            refuse_value("prior must be finite, got " + number(in.prior.data[m]) + " at [" +
                         std::to_string(m) + "]");
        }
    }
    const int64_t voting =
        checked_columns("k", k.is_none() ? columns : py::cast<int64_t>(k), columns, 65535);
    in.ballots = {in.neighbours.data,
                  in.weights.data,
                  in.neighbours.shape[0],
                  columns,
                  voting,
                  in.bits.data,
                  in.present.data,
                  in.scores.data,
                  bits.is_none() ? in.scores.shape[0] : in.bits.shape[0],
                  bits.is_none() ? 0 : in.bits.shape[1],
                  n_models,
                  in.prior.data,
                  prior_weight};
    return in;
}

void refuse_fault(const Fault& fault, const Inputs& in, const float* similarities) {
    const int64_t cell = fault.row * in.ballots.columns + fault.column;
    switch (fault.kind) {
        case FaultKind::none:
        case FaultKind::place:
        case FaultKind::query:
            return;
        case FaultKind::id:
            refuse_value("neighbours must be -1 (none) or a record number in [0, " +
                         std::to_string(in.ballots.records) + "), got " +
                         std::to_string(in.ballots.ids[cell]) + at(fault.row, fault.column));
        case FaultKind::weight:
            refuse_value("weights must be finite and at least 0, got " +
                         number(in.ballots.weights[cell]) + at(fault.row, fault.column));
        case FaultKind::similarity:
            refuse_value("similarities must be finite where there is a neighbour, got " +
                         number(similarities[cell]) + at(fault.row, fault.column));
        case FaultKind::score:
            refuse_value("outcomes must be finite or NaN (missing), got " +
                         number(in.ballots.scores[fault.row * in.ballots.models + fault.column]) +
                         at(fault.row, fault.column));
    }
}

namespace {

template <class T>
py::object given_or_new(const py::object& given, std::vector<py::ssize_t> shape) {
    if (!given.is_none()) return given;
    return py::array_t<T>(std::move(shape));
}

py::tuple votes_binding(const py::object& neighbours, const py::object& bits,
                        const py::object& present, const py::object& scores, int64_t n_models,
                        const py::object& prior, const py::object& k, double prior_weight,
                        const py::object& weights, int64_t threads, const std::string& simd,
                        const py::object& out_votes, const py::object& out_support) {
    const Inputs in = checked_inputs(neighbours, bits, present, scores, n_models, prior, k,
                                     prior_weight, weights);
    const Run run = checked_run(threads, simd);
    const std::array<int64_t, 2> shape{in.queries(), in.models()};
    const py::object votes_array = given_or_new<float>(out_votes, {shape[0], shape[1]});
    const py::object support_array = given_or_new<uint16_t>(out_support, {shape[0], shape[1]});
    const auto votes_view = write<float, 2>(votes_array, "out.votes");
    const auto support_view = write<uint16_t, 2>(support_array, "out.support");
    expect_shape(votes_view, shape, "(queries, models)");
    expect_shape(support_view, shape, "(queries, models)");
    refuse_overlap({extent(votes_view), extent(support_view)}, in.extents());
    Fault fault;
    {
        const py::gil_scoped_release released;
        fault = votes(in.ballots, votes_view.data, support_view.data, run);
    }
    refuse_fault(fault, in, nullptr);
    return py::make_tuple(votes_array, support_array);
}

}  // namespace

std::vector<int64_t> order_of(const View<const int32_t, 1>& preference, int64_t models) {
    expect_length("preference", "values", preference.shape[0], "outcomes has models:", models);
    std::vector<int64_t> order(static_cast<size_t>(models), -1);
    for (int64_t m = 0; m < models; ++m) {
        const int64_t place = preference.data[m];
        if (place < 0 || place >= models || order[static_cast<size_t>(place)] >= 0) {
            refuse_value("preference must hold each of 0 to " + std::to_string(models - 1) +
                         " once, got " + std::to_string(place) +
                         (place >= 0 && place < models ? " again" : "") + " at [" +
                         std::to_string(m) + "]");
        }
        order[static_cast<size_t>(place)] = m;
    }
    return order;
}

Allowed checked_allowed(const py::object& allowed, int64_t models, int64_t fallback_model) {
    if (allowed.is_none()) return {{}, models};
    const auto view = read<bool, 1>(allowed, "allowed");
    expect_length("allowed", "values", view.shape[0], "outcomes has models:", models);
    return {view, count_allowed(view.data, models, fallback_model)};
}

ChosenArrays chosen_arrays(const py::object& out, int64_t queries) {
    py::tuple given =
        out.is_none() ? py::make_tuple(py::none(), py::none(), py::none(), py::none(), py::none())
                      : py::tuple(out);
    if (given.size() != 5)
        refuse_value("out must hold 5 arrays, got " + std::to_string(given.size()));
    const std::array<int64_t, 1> shape{queries};
    const std::array<py::object, 5> arrays{
        given_or_new<int32_t>(given[0], {queries}), given_or_new<float>(given[1], {queries}),
        given_or_new<float>(given[2], {queries}), given_or_new<float>(given[3], {queries}),
        given_or_new<bool>(given[4], {queries})};
    const auto model = write<int32_t, 1>(arrays[0], "out.model");
    const auto score = write<float, 1>(arrays[1], "out.score");
    const auto margin = write<float, 1>(arrays[2], "out.margin");
    const auto distance = write<float, 1>(arrays[3], "out.distance");
    const auto fallback = write<bool, 1>(arrays[4], "out.fallback");
    expect_shape(model, shape, "(queries,)");
    expect_shape(score, shape, "(queries,)");
    expect_shape(margin, shape, "(queries,)");
    expect_shape(distance, shape, "(queries,)");
    expect_shape(fallback, shape, "(queries,)");
    return {arrays,
            {model.data, score.data, margin.data, distance.data, fallback.data},
            {extent(model), extent(score), extent(margin), extent(distance), extent(fallback)}};
}

namespace {

// The part of a decision that only rule "s3" has.
View<const float, 2> checked_p_table(const py::object& p_table, double start, double step,
                                     int64_t models) {
    const auto table = read<float, 2>(p_table, "p_table");
    check_grid(table.shape[0], table.shape[1], start, step, models);
    for (int64_t i = 0; i < table.shape[0] * models; ++i) {
        if (!std::isfinite(table.data[i])) {
            refuse_value("p_table must be finite, got " + number(table.data[i]) +
                         at(i / models, i % models));
        }
    }
    return table;
}

py::tuple decide_binding(const py::object& neighbours, const py::object& similarities,
                         const py::object& bits, const py::object& present,
                         const py::object& scores, int64_t n_models, const py::object& prior,
                         const py::object& preference, const py::object& k, int64_t kappa,
                         const std::string& rule, double prior_weight, double threshold,
                         const py::object& p_table, double p_start, double p_step,
                         double distance_limit, int64_t fallback_model, const py::object& allowed,
                         const py::object& weights, int64_t threads, const std::string& simd,
                         const py::object& out) {
    const Inputs in = checked_inputs(neighbours, bits, present, scores, n_models, prior, k,
                                     prior_weight, weights);
    const int64_t models = in.models();
    if (models < 1) refuse_value("outcomes must have at least 1 model to decide, got 0");
    const auto similarities_view = read<float, 2>(similarities, "similarities");
    expect_shape(similarities_view, in.neighbours.shape, "as neighbours");
    const auto preference_view = read<int32_t, 1>(preference, "preference");
    const std::vector<int64_t> order = order_of(preference_view, models);
    checked_columns("kappa", kappa, in.ballots.columns, INT64_MAX);
    const bool is_s3 =
        check_decision(rule, !p_table.is_none(), threshold, distance_limit, fallback_model, models);
    View<const float, 2> table;
    if (is_s3) table = checked_p_table(p_table, p_start, p_step, models);
    const Allowed among = checked_allowed(allowed, models, fallback_model);
    const Run run = checked_run(threads, simd);

    const ChosenArrays made = chosen_arrays(out, in.queries());
    std::vector<Extent> inputs = in.extents();
    inputs.push_back(extent(similarities_view));
    inputs.push_back(extent(preference_view));
    inputs.push_back(extent(table));
    inputs.push_back(extent(among.view));
    refuse_overlap(made.extents, inputs);

    const Decision decision{is_s3 ? Rule::s3 : Rule::mean,
                            similarities_view.data,
                            kappa,
                            preference_view.data,
                            order.data(),
                            threshold,
                            table.data,
                            p_start,
                            p_step,
                            table.shape[0],
                            distance_limit,
                            fallback_model,
                            among.view.data,
                            among.count};
    Fault fault;
    {
        const py::gil_scoped_release released;
        fault = decide(in.ballots, decision, made.chosen, run);
    }
    refuse_fault(fault, in, similarities_view.data);
    return py::tuple(py::cast(made.arrays));
}

py::tuple task_scores_binding(const py::object& neighbours, const py::object& bits,
                              const py::object& present, const py::object& scores, int64_t n_models,
                              const py::object& offsets, const py::object& prior,
                              const py::object& k, double threshold, const py::object& weights,
                              int64_t threads, const std::string& simd) {
    const Inputs in =
        checked_inputs(neighbours, bits, present, scores, n_models, prior, k, 0.0, weights);
    const auto offsets_view = read<int64_t, 1>(offsets, "offsets");
    const int64_t tasks = offsets_view.shape[0] - 1;
    if (tasks < 0) refuse_value("offsets must hold at least 1 value, got 0");
    for (int64_t i = 0; i <= tasks; ++i) {
        const int64_t least = i ? offsets_view.data[i - 1] : 0;
        const bool wrong_end = i == 0 && offsets_view.data[0] != 0;
        if (wrong_end || offsets_view.data[i] < least) {
            refuse_value("offsets must ascend from 0 to the " + std::to_string(in.queries()) +
                         " queries, got " + std::to_string(offsets_view.data[i]) + " at [" +
                         std::to_string(i) + "]" + (i ? " after " + std::to_string(least) : ""));
        }
    }
    if (offsets_view.data[tasks] != in.queries()) {
        refuse_value("offsets must ascend from 0 to the " + std::to_string(in.queries()) +
                     " queries, got " + std::to_string(offsets_view.data[tasks]) + " at the end");
    }
    check_threshold(threshold);
    const Run run = checked_run(threads, simd);
    const py::array_t<double> s1({tasks, in.models()}), s2({tasks, in.models()});
    const py::array_t<int64_t> support({tasks, in.models()});
    const TaskScores out{const_cast<double*>(s1.data()), const_cast<double*>(s2.data()),
                         const_cast<int64_t*>(support.data())};
    Fault fault;
    {
        const py::gil_scoped_release released;
        fault = task_scores(in.ballots, offsets_view.data, tasks, threshold, out, run);
    }
    refuse_fault(fault, in, nullptr);
    return py::make_tuple(s1, s2, support);
}

void stream_copy_binding(const py::object& source, const py::object& target, int64_t threads) {
    const auto from = read<uint8_t, 1>(source, "source");
    const auto to = write<uint8_t, 1>(target, "target");
    expect_shape(to, from.shape, "as source");
    refuse_overlap({extent(to)}, {extent(from)});
    const Run run = checked_run(threads, "auto");
    const py::gil_scoped_release released;
    stream_copy(from.data, to.data, from.bytes(), run);
}

}  // namespace

Simd checked_simd(const std::string& name) {
    if (name == "auto") return widest_simd();
    std::string known = "'auto'";
    for (int level = 0; level <= static_cast<int>(widest_simd()); ++level) {
        if (name == kSimdNames[level]) return static_cast<Simd>(level);
        known += std::string(", '") + kSimdNames[level] + "'";
    }
    refuse_value("simd must be one of " + known + " on this machine, got '" + name + "'");
}

Run checked_run(int64_t threads, const std::string& simd) {
    if (threads < 0)
        refuse_value("threads must be 0 (all) or more, got " + std::to_string(threads));
    return {static_cast<int>(threads > 1024 ? 1024 : threads), checked_simd(simd)};
}

void refuse_similarity(const Fault& fault) {
    if (fault.kind == FaultKind::similarity) {
        refuse_value("similarities must be finite, got none for query " +
                     std::to_string(fault.row) + " and record " + std::to_string(fault.column));
    }
}

PYBIND11_MODULE(_core, module) {
    module.doc() = "Votes, decisions and exact ranking over NumPy arrays; see benchrouter.votes.votes.";
#if defined(BR_SANITIZED)
    module.attr("sanitized") = true;
    module.def("overrun", [] {
        const std::vector<float> few(3);
        return *(static_cast<const volatile float*>(few.data()) + few.size());
    });
#else
    module.attr("sanitized") = false;
#endif
    module.attr("task_block") = kTaskBlock;
    module.def("simd_levels", &simd_levels,
               "Instruction sets that this machine runs, narrowest first.");
    module.def("votes", &votes_binding, py::arg("neighbours"), py::arg("bits"), py::arg("present"),
               py::arg("scores"), py::arg("n_models"), py::arg("prior"), py::arg("k"),
               py::arg("prior_weight"), py::arg("weights"), py::arg("threads"), py::arg("simd"),
               py::arg("out_votes"), py::arg("out_support"));
    module.def("decide", &decide_binding, py::arg("neighbours"), py::arg("similarities"),
               py::arg("bits"), py::arg("present"), py::arg("scores"), py::arg("n_models"),
               py::arg("prior"), py::arg("preference"), py::arg("k"), py::arg("kappa"),
               py::arg("rule"), py::arg("prior_weight"), py::arg("threshold"), py::arg("p_table"),
               py::arg("p_start"), py::arg("p_step"), py::arg("distance_limit"),
               py::arg("fallback_model"), py::arg("allowed"), py::arg("weights"),
               py::arg("threads"), py::arg("simd"), py::arg("out"));
    module.def("task_scores", &task_scores_binding, py::arg("neighbours"), py::arg("bits"),
               py::arg("present"), py::arg("scores"), py::arg("n_models"), py::arg("offsets"),
               py::arg("prior"), py::arg("k"), py::arg("threshold"), py::arg("weights"),
               py::arg("threads"), py::arg("simd"));
    module.def("stream_copy", &stream_copy_binding, py::arg("source"), py::arg("target"),
               py::arg("threads"), "What memory allows: benchmarks/votes.py compares with it.");
    bind_attention(module);
    bind_cells(module);
    bind_expect(module);
    bind_quantize(module);
    bind_search(module);
#if defined(BR_CUDA)
    module.attr("has_cuda") = true;
    bind_cuda(module);
#else
    module.attr("has_cuda") = false;
#endif
}

}  // namespace benchrouter
