// benchrouter._core.votes_on_device, decide_on_device and expect_on_device: check DLPack capsules,
// launch the kernels. Values in device memory are checked by the kernels, by
// benchrouter.votes.on_device and by benchrouter.scores.expected.on_device.
#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "bindings/dlpack.hpp"
#include "scores/learnt.hpp"
#include "votes/vote_cuda.hpp"

namespace benchrouter {
namespace {

// The arguments that votes and decisions have in common, checked.
struct DeviceInputs {
    SharedDevice device;
    View<const int64_t, 2> neighbours;
    View<const float, 2> weights, scores;
    View<const uint64_t, 2> bits, present;
    View<const float, 1> prior;
    View<int64_t, 1> fault;
    Ballots ballots{};
    Launch launch{};

    template <class T, std::size_t kDims>
    View<T, kDims> view(const py::handle& capsule, const char* name) {
        return device_view<T, kDims>(capsule, name, device);
    }
    std::vector<Extent> extents() const {
        return {extent(neighbours), extent(weights), extent(scores), extent(bits),
                extent(present),    extent(prior),   extent(fault)};
    }
};

DeviceInputs checked_inputs(const py::handle& neighbours, const py::handle& bits,
                            const py::handle& present, const py::handle& scores, int64_t n_models,
                            const py::handle& prior, int64_t k, double prior_weight,
                            const py::handle& weights, const py::handle& fault, intptr_t stream) {
    DeviceInputs in;
    in.neighbours = in.view<const int64_t, 2>(neighbours, "neighbours");
    if (!weights.is_none()) in.weights = in.view<const float, 2>(weights, "weights");
    in.prior = in.view<const float, 1>(prior, "prior");
    if (bits.is_none() == scores.is_none())
        refuse_value("either bits or scores must be given, not both");
    if (bits.is_none()) {
        in.scores = in.view<const float, 2>(scores, "outcomes");
        n_models = in.scores.shape[1];
    } else {
        in.bits = in.view<const uint64_t, 2>(bits, "bits");
        check_words(n_models, in.bits.shape[1]);
        if (!present.is_none()) {
            in.present = in.view<const uint64_t, 2>(present, "present");
            expect_shape(in.present, in.bits.shape, "as bits");
        }
    }
    in.fault = in.view<int64_t, 1>(fault, "fault");
    expect_shape(in.fault, {1}, "(one place)");
    expect_length("prior", "values", in.prior.shape[0], "outcomes has models:", n_models);
    if (!weights.is_none()) expect_shape(in.weights, in.neighbours.shape, "as neighbours");
    check_prior_weight(prior_weight);
    const int64_t columns = in.neighbours.shape[1];
    checked_columns("k", k, columns, 65535);
    in.ballots = {in.neighbours.data,
                  in.weights.data,
                  in.neighbours.shape[0],
                  columns,
                  k,
                  in.bits.data,
                  in.present.data,
                  in.scores.data,
                  bits.is_none() ? in.scores.shape[0] : in.bits.shape[0],
                  bits.is_none() ? 0 : in.bits.shape[1],
                  n_models,
                  in.prior.data,
                  prior_weight};
    in.launch = {in.device.id, reinterpret_cast<void*>(stream), in.fault.data};
    return in;
}

void votes_binding(const py::object& neighbours, const py::object& bits, const py::object& present,
                   const py::object& scores, int64_t n_models, const py::object& prior, int64_t k,
                   double prior_weight, const py::object& weights, const py::object& out_votes,
                   const py::object& out_support, const py::object& fault, intptr_t stream) {
    DeviceInputs in = checked_inputs(neighbours, bits, present, scores, n_models, prior, k,
                                     prior_weight, weights, fault, stream);
    const std::array<int64_t, 2> shape{in.ballots.queries, in.ballots.models};
    const auto votes = in.view<float, 2>(out_votes, "out.votes");
    const auto support = in.view<uint16_t, 2>(out_support, "out.support");
    expect_shape(votes, shape, "(queries, models)");
    expect_shape(support, shape, "(queries, models)");
    refuse_overlap({extent(votes), extent(support)}, in.extents());
    const py::gil_scoped_release released;
    votes_on_device(in.ballots, votes.data, support.data, in.launch);
}

// The tensors that every kind of decision has besides, checked.
struct DecisionTensors {
    View<const float, 2> similarities;
    View<const int32_t, 1> preference;
    View<const bool, 1> allowed;
    Chosen chosen{};
    std::vector<Extent> inputs, outputs;
};

DecisionTensors checked_decision(DeviceInputs& in, const py::handle& similarities,
                                 const py::handle& preference, int64_t kappa,
                                 const py::handle& allowed, const py::tuple& out) {
    const int64_t models = in.ballots.models;
    if (models < 1) refuse_value("outcomes must have at least 1 model to decide, got 0");
    DecisionTensors found;
    found.similarities = in.view<const float, 2>(similarities, "similarities");
    expect_shape(found.similarities, in.neighbours.shape, "as neighbours");
    found.preference = in.view<const int32_t, 1>(preference, "preference");
    expect_length("preference", "values", found.preference.shape[0],
                  "outcomes has models:", models);
    checked_columns("kappa", kappa, in.ballots.columns, INT64_MAX);
    if (!allowed.is_none()) {
        found.allowed = in.view<const bool, 1>(allowed, "allowed");
        expect_length("allowed", "values", found.allowed.shape[0], "outcomes has models:", models);
    }
    if (out.size() != 5) refuse_value("out must hold 5 arrays, got " + std::to_string(out.size()));
    const std::array<int64_t, 1> shape{in.ballots.queries};
    const auto model = in.view<int32_t, 1>(out[0], "out.model");
    const auto score = in.view<float, 1>(out[1], "out.score");
    const auto margin = in.view<float, 1>(out[2], "out.margin");
    const auto distance = in.view<float, 1>(out[3], "out.distance");
    const auto fallback = in.view<bool, 1>(out[4], "out.fallback");
    expect_shape(model, shape, "(queries,)");
    expect_shape(score, shape, "(queries,)");
    expect_shape(margin, shape, "(queries,)");
    expect_shape(distance, shape, "(queries,)");
    expect_shape(fallback, shape, "(queries,)");
    found.chosen = {model.data, score.data, margin.data, distance.data, fallback.data};
    found.outputs = {extent(model), extent(score), extent(margin), extent(distance),
                     extent(fallback)};
    found.inputs = in.extents();
    found.inputs.push_back(extent(found.similarities));
    found.inputs.push_back(extent(found.preference));
    found.inputs.push_back(extent(found.allowed));
    return found;
}

void decide_binding(const py::object& neighbours, const py::object& similarities,
                    const py::object& bits, const py::object& present, const py::object& scores,
                    int64_t n_models, const py::object& prior, const py::object& preference,
                    int64_t k, int64_t kappa, const std::string& rule, double prior_weight,
                    double threshold, const py::object& p_table, double p_start, double p_step,
                    double distance_limit, int64_t fallback_model, const py::object& allowed,
                    const py::object& weights, const py::tuple& out, const py::object& fault,
                    intptr_t stream) {
    DeviceInputs in = checked_inputs(neighbours, bits, present, scores, n_models, prior, k,
                                     prior_weight, weights, fault, stream);
    DecisionTensors given = checked_decision(in, similarities, preference, kappa, allowed, out);
    const int64_t models = in.ballots.models;
    const bool is_s3 =
        check_decision(rule, !p_table.is_none(), threshold, distance_limit, fallback_model, models);
    View<const float, 2> table;
    if (is_s3) {
        table = in.view<const float, 2>(p_table, "p_table");
        check_grid(table.shape[0], table.shape[1], p_start, p_step, models);
        given.inputs.push_back(extent(table));
    }
    refuse_overlap(given.outputs, given.inputs);
    const Decision decision{is_s3 ? Rule::s3 : Rule::mean,
                            given.similarities.data,
                            kappa,
                            given.preference.data,
                            nullptr,
                            threshold,
                            table.data,
                            p_start,
                            p_step,
                            table.shape[0],
                            distance_limit,
                            fallback_model,
                            given.allowed.data,
                            0};
    const py::gil_scoped_release released;
    decide_on_device(in.ballots, decision, given.chosen, in.launch);
}

void expect_binding(const py::dict& learnt, const py::object& queries, const py::object& neighbours,
                    const py::object& similarities, const py::object& bits,
                    const py::object& present, const py::object& scores, int64_t n_models,
                    const py::object& prior, const py::object& preference, int64_t k, int64_t kappa,
                    double distance_limit, int64_t fallback_model, int64_t home,
                    const py::object& allowed, const py::tuple& out, const py::object& out_strange,
                    const py::object& out_scores, const py::object& fault, intptr_t stream) {
    DeviceInputs in = checked_inputs(neighbours, bits, present, scores, n_models, prior, k, 0.0,
                                     py::none(), fault, stream);
    DecisionTensors given = checked_decision(in, similarities, preference, kappa, allowed, out);
    const int64_t models = in.ballots.models;
    check_decision("mean", false, 0.0, distance_limit, fallback_model, models);
    const LearntArrays arrays{
        in.view<const int32_t, 1>(learnt["dataset"], "dataset"),
        in.view<const float, 1>(learnt["own_distance"], "own_distance"),
        in.view<const double, 1>(learnt["standing"], "standing"),
        in.view<const double, 1>(learnt["share"], "share"),
        in.view<const float, 2>(learnt["of_dataset"], "of_dataset"),
        in.view<const float, 2>(learnt["linear"], "linear"),
        in.view<const double, 1>(learnt["offset"], "offset"),
    };
    const LearntNumbers numbers{
        learnt["apart"].cast<Pair>(),
        learnt["level"].cast<Pair>(),
        learnt["gate"].cast<std::array<double, 4>>(),
        learnt["margin"].cast<Pair>(),
        learnt["tolerance"].cast<Pair>(),
    };
    Expectation expectation = checked_expectation(arrays, numbers);
    check_learnt(arrays, in.ballots.records, models, home);
    const auto queries_view = in.view<const float, 2>(queries, "queries");
    expect_shape(queries_view, {in.ballots.queries, arrays.dim()}, "(queries, dim)");
    expectation.queries = queries_view.data;
    expectation.home = home;
    const auto strange = in.view<float, 1>(out_strange, "out_strange");
    expect_shape(strange, {in.ballots.queries}, "(queries,)");
    given.outputs.push_back(extent(strange));
    View<float, 2> all_scores;
    if (!out_scores.is_none()) {
        all_scores = in.view<float, 2>(out_scores, "out_scores");
        expect_shape(all_scores, {in.ballots.queries, models}, "(queries, models)");
        given.outputs.push_back(extent(all_scores));
    }
    given.inputs.push_back(extent(queries_view));
    for (const Extent& held : arrays.extents()) given.inputs.push_back(held);
    refuse_overlap(given.outputs, given.inputs);
    const Decision decision{Rule::mean,
                            given.similarities.data,
                            kappa,
                            given.preference.data,
                            nullptr,
                            0.0,
                            nullptr,
                            0.0,
                            1.0,
                            0,
                            distance_limit,
                            fallback_model,
                            given.allowed.data,
                            0};
    const Expected expected{given.chosen, strange.data, all_scores.data};
    const py::gil_scoped_release released;
    expect_on_device(in.ballots, decision, expectation, expected, in.launch);
}

}  // namespace

void bind_cuda(py::module_& module) {
    py::list faults;
    for (const char* const kind : kDeviceFaults) faults.append(kind);
    module.attr("device_faults") = faults;
    module.def("votes_on_device", &votes_binding, py::arg("neighbours"), py::arg("bits"),
               py::arg("present"), py::arg("scores"), py::arg("n_models"), py::arg("prior"),
               py::arg("k"), py::arg("prior_weight"), py::arg("weights"), py::arg("out_votes"),
               py::arg("out_support"), py::arg("fault"), py::arg("stream"));
    module.def("decide_on_device", &decide_binding, py::arg("neighbours"), py::arg("similarities"),
               py::arg("bits"), py::arg("present"), py::arg("scores"), py::arg("n_models"),
               py::arg("prior"), py::arg("preference"), py::arg("k"), py::arg("kappa"),
               py::arg("rule"), py::arg("prior_weight"), py::arg("threshold"), py::arg("p_table"),
               py::arg("p_start"), py::arg("p_step"), py::arg("distance_limit"),
               py::arg("fallback_model"), py::arg("allowed"), py::arg("weights"), py::arg("out"),
               py::arg("fault"), py::arg("stream"));
    module.def("expect_on_device", &expect_binding, py::arg("learnt"), py::arg("queries"),
               py::arg("neighbours"), py::arg("similarities"), py::arg("bits"), py::arg("present"),
               py::arg("scores"), py::arg("n_models"), py::arg("prior"), py::arg("preference"),
               py::arg("k"), py::arg("kappa"), py::arg("distance_limit"), py::arg("fallback_model"),
               py::arg("home"), py::arg("allowed"), py::arg("out"), py::arg("out_strange"),
               py::arg("out_scores"), py::arg("fault"), py::arg("stream"));
}

}  // namespace benchrouter
