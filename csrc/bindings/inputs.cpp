#include "bindings/inputs.hpp"

#include <string>

#include "bindings/checks.hpp"

namespace benchrouter {

Ballots checked_ballots(Given& given, double prior_weight, bool weighted) {
    Ballots in{};
    const auto neighbours = given.input<int64_t, 2>("neighbours");
    in.ids = neighbours.data;
    in.queries = neighbours.shape[0];
    in.columns = neighbours.shape[1];
    if (weighted && given.has("weights")) {
        const auto weights = given.input<float, 2>("weights");
        expect_shape(weights, neighbours.shape, "as neighbours");
        in.weights = weights.data;
    }
    const auto prior = given.input<float, 1>("prior");
    if (given.has("bits") == given.has("scores"))
        refuse_value("either bits or scores must be given, not both");
    if (given.has("scores")) {
        const auto scores = given.input<float, 2>(given["scores"], "outcomes");
        in.scores = scores.data;
        in.records = scores.shape[0];
        in.models = scores.shape[1];
    } else {
        const auto bits = given.input<uint64_t, 2>("bits");
        in.bits = bits.data;
        in.records = bits.shape[0];
        in.words = bits.shape[1];
        in.models = given.get<int64_t>("n_models");
        check_words(in.models, in.words);
        if (given.has("present")) {
            const auto present = given.input<uint64_t, 2>("present");
            expect_shape(present, bits.shape, "as bits");
            in.present = present.data;
        }
    }
    expect_length("prior", "values", prior.shape[0], "outcomes has models:", in.models);
    check_prior_weight(prior_weight);
    if (!given.on_device()) check_finite("prior", prior.data, in.models);
    in.k = checked_columns("k", given.has("k") ? given.get<int64_t>("k") : in.columns, in.columns,
                           65535);
    in.prior = prior.data;
    in.prior_weight = prior_weight;
    return in;
}

std::pair<float*, uint16_t*> vote_outputs(Given& given, const Ballots& in) {
    const std::array<int64_t, 2> shape{in.queries, in.models};
    const char* const because = "(queries, models)";
    float* const votes =
        given.output<float, 2>(given["out_votes"], "out.votes", shape, because).data;
    uint16_t* const support =
        given.output<uint16_t, 2>(given["out_support"], "out.support", shape, because).data;
    given.refuse_overlap();
    return {votes, support};
}

std::pair<Decision, Chosen> checked_decision(Given& given, const Ballots& in,
                                             const std::string& rule, double threshold,
                                             int64_t home, std::vector<int64_t>& order) {
    const int64_t models = in.models;
    if (models < 1) refuse_value("outcomes must have at least 1 model to decide, got 0");
    Decision decision{};
    const auto similarities = given.input<float, 2>("similarities");
    expect_shape(similarities, {in.queries, in.columns}, "as neighbours");
    decision.similarities = similarities.data;
    const auto preference = given.input<int32_t, 1>("preference");
    expect_length("preference", "values", preference.shape[0], "outcomes has models:", models);
    if (!given.on_device()) order = checked_order(preference);
    decision.preference = preference.data;
    decision.order = order.data();
    decision.kappa = checked_columns("kappa", given.get<int64_t>("kappa"), in.columns, INT64_MAX);
    decision.threshold = threshold;
    decision.distance_limit = given.get<double>("distance_limit");
    decision.fallback_model = given.get<int64_t>("fallback_model");
    const bool has_table = home < 0 && given.has("p_table");
    const bool is_s3 = check_decision(rule, has_table, threshold, decision.distance_limit,
                                      decision.fallback_model, models);
    decision.rule = is_s3 ? Rule::s3 : Rule::mean;
    if (is_s3) {
        const auto table = given.input<float, 2>("p_table");
        decision.p_start = given.get<double>("p_start");
        decision.p_step = given.get<double>("p_step");
        decision.grid_size = table.shape[0];
        check_grid(table.shape[0], table.shape[1], decision.p_start, decision.p_step, models);
        if (!given.on_device()) check_finite("p_table", table.data, table.shape[0], models);
        decision.p_table = table.data;
    }
    decision.n_allowed = models;
    if (given.has("allowed")) {
        const auto allowed = given.input<bool, 1>("allowed");
        expect_length("allowed", "values", allowed.shape[0], "outcomes has models:", models);
        if (!given.on_device())
            decision.n_allowed = checked_allowed(allowed, decision.fallback_model, home);
        decision.allowed = allowed.data;
    }
    const std::array<int64_t, 1> shape{in.queries};
    const char* const because = "(queries,)";
    const py::tuple out = given.has("out") ? py::tuple(given["out"]) : py::tuple(5);
    if (out.size() != 5) refuse_value("out must hold 5 arrays, got " + std::to_string(out.size()));
    const auto place = [&](int i) {
        return given.has("out") ? py::object(out[i]) : py::object(py::none());
    };
    const Chosen chosen{given.output<int32_t, 1>(place(0), "out.model", shape, because).data,
                        given.output<float, 1>(place(1), "out.score", shape, because).data,
                        given.output<float, 1>(place(2), "out.margin", shape, because).data,
                        given.output<float, 1>(place(3), "out.distance", shape, because).data,
                        given.output<bool, 1>(place(4), "out.fallback", shape, because).data};
    return {decision, chosen};
}

ExpectTask expect_task(Given& given, const LearntArrays& learnt, const Expectation& expectation) {
    ExpectTask task{checked_ballots(given, 0.0, false), {}, expectation, {}, {}};
    const Ballots& in = task.ballots;
    if (in.models < 1) refuse_value("outcomes must have at least 1 model to decide, got 0");
    task.expectation.home = given.get<int64_t>("home");
    check_learnt(learnt, in.records, in.models, task.expectation.home);
    const auto queries = given.input<float, 2>("queries");
    expect_shape(queries, {in.queries, learnt.dim()}, "(queries, dim)");
    task.expectation.queries = queries.data;
    std::tie(task.decision, task.expected.chosen) =
        checked_decision(given, in, "mean", 0.0, task.expectation.home, task.order);
    task.expected.strange =
        given.output<float, 1>(given["out_strange"], "out_strange", {in.queries}, "(queries,)")
            .data;
    if (given.has("out_scores")) {
        task.expected.scores = given
                                   .output<float, 2>(given["out_scores"], "out_scores",
                                                     {in.queries, in.models}, "(queries, models)")
                                   .data;
    }
    given.refuse_overlap();
    return task;
}

void refuse_fault(const Fault& fault, const Ballots& in, const float* similarities) {
    if (!fault) return;
    const int64_t cell = fault.row * in.columns + fault.column;
    if (fault.kind == FaultKind::id) {
        refuse_id("neighbours", "record number", in.records, in.ids[cell],
                  at(fault.row, fault.column));
    }
    const float found = fault.kind == FaultKind::weight ? in.weights[cell]
                        : fault.kind == FaultKind::similarity
                            ? similarities[cell]
                            : in.scores[fault.row * in.models + fault.column];
    refuse_number(fault.kind, found, fault.row, fault.column);
}

}  // namespace benchrouter
