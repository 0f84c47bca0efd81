// The loop over queries of the rule `auto` (expect.hpp). Included by kernels.hpp, whose votes,
// distances and checks it uses.

// What a query's nearest records are: where they come from, and how far apart they lie themselves.
struct Surroundings {
    double own;     // mean distance of the first kappa neighbours to the others
    double purity;  // share of the commonest dataset among them
};

// `counts` holds zeros for all datasets, before and afterwards.
Surroundings surroundings_of(const Expectation& e, const int64_t* ids, int64_t kappa,
                             int32_t* counts) {
    double own = 0.0;
    int32_t most = 0, found = 0;
    for (int64_t j = 0; j < kappa; ++j) {
        if (ids[j] < 0) continue;
        own = add(own, static_cast<double>(e.own_distance[ids[j]]));
        const int32_t count = ++counts[e.dataset[ids[j]]];
        most = count > most ? count : most;
        ++found;
    }
    for (int64_t j = 0; j < kappa; ++j) {
        if (ids[j] >= 0) counts[e.dataset[ids[j]]] = 0;
    }
    return {own / found, static_cast<double>(most) / found};
}

// sums += factor * row, for `count` values, a multiple of kModelGroup / 4.
inline void add_row(double factor, const float* row, int64_t count, double* sums) {
    constexpr int64_t together = 16;
    for (int64_t m = 0; m < count; m += together) {
        for (int part = 0; part < together; part += kWidth) {
            const Lanes values = load<Lanes>(sums + m + part) + factor * widen(row + m + part);
            memcpy(sums + m + part, &values, sizeof values);
        }
    }
}

// sums = offset + queries[query] * linear, added up in the order of the dimensions.
inline void linear_views(const Expectation& e, int64_t query, double* sums) {
    constexpr int64_t together = 16;
    const float* x = e.queries + query * e.dim;
    for (int64_t m = 0; m < 2 * e.width; m += together) {
        Lanes parts[together / kWidth];
        memcpy(parts, e.offset + m, sizeof parts);
        const float* row = e.linear + m;
        for (int64_t i = 0; i < e.dim; ++i, row += 2 * e.width) {
            const double value = x[i];
            for (int part = 0; part < together / kWidth; ++part) {
                parts[part] += value * widen(row + part * kWidth);
            }
        }
        memcpy(sums + m, parts, sizeof parts);
    }
}

// Expected scores of all models on one query, after value_votes(); scratch.value becomes them.
void expect_models(const Outcomes& outcomes, const Ballots& ballots, const Expectation& e,
                   int64_t query, double chance, Scratch& scratch) {
    const int64_t* ids = ballots.ids + query * ballots.columns;
    double* const views = scratch.views;
    double* const datasets = scratch.views + 2 * e.width;
    linear_views(e, query, views);
    memset(datasets, 0, static_cast<size_t>(2 * e.width) * sizeof(double));
    const int32_t neighbours = count_neighbours(ids, ballots.k);
    const double found = neighbours ? neighbours : 1;
    for (int64_t j = 0; j < ballots.k; ++j) {
        if (ids[j] >= 0) {
            const float* row = e.of_dataset + e.dataset[ids[j]] * 2 * e.width;
            add_row(1.0, row, 2 * e.width, datasets);
        }
    }
    double level = 0.0;
    for (int64_t m = 0; m < outcomes.models; ++m) {
        level = add(level, mul(e.share[m], add(scratch.value[m], -e.standing[m])));
    }
    for (int64_t m = 0; m < outcomes.models; ++m) {
        const double known = add(views[m], datasets[m] / found);
        const double strange = add(views[e.width + m], datasets[e.width + m] / found);
        const double vote = add(add(scratch.value[m], -e.standing[m]), -level);
        scratch.value[m] = expected(e, e.standing[m], vote, level, known, strange, chance);
    }
}

// Chooses the model of the largest expected score, that of the best on average raised by its
// margin; among models within the tolerance of it, the most preferred.
int64_t choose_expected(const Outcomes& outcomes, const Expectation& e, double chance,
                        const Scratch& scratch) {
    const float home = static_cast<float>(
        add(static_cast<double>(scratch.score[e.home]), of_kind(e.margin, chance)));
    float best = home;
    for (int64_t m = 0; m < outcomes.models; ++m) {
        best = scratch.score[m] > best ? scratch.score[m] : best;
    }
    const float least =
        static_cast<float>(add(static_cast<double>(best), -of_kind(e.tolerance, chance)));
    int64_t model = e.home;
    int32_t place = INT32_MAX;
    for (int64_t m = 0; m < outcomes.models; ++m) {
        const float counted = m == e.home ? home : scratch.score[m];
        if (counted >= least && scratch.preference[m] < place) {
            model = m;
            place = scratch.preference[m];
        }
    }
    return model;
}

Fault expect(const Ballots& ballots, const Outcomes& outcomes, const Prior&,
             const Decision& decision, const Expectation& e, int64_t begin, int64_t end,
             const Expected& out, Scratch& scratch) {
    constexpr int64_t step = 32;
    const int64_t used = ballots.k > decision.kappa ? ballots.k : decision.kappa;
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        const Checked ids = check_ids(ballots, outcomes.records, used, from, to);
        if (ids.fault.kind != FaultKind::none) return ids.fault;
        Fault fault = check_similarities(ballots, decision, from, to);
        if (fault.kind != FaultKind::none) return fault;
        for (int64_t i = from; i < to; ++i) {
            if (i + kAhead < to) prefetch_rows(ballots, outcomes, i + kAhead);
            fault = tally(ballots, outcomes, i, scratch);
            if (fault.kind != FaultKind::none) return fault;
            value_votes(outcomes, 0.0, scratch);
            const int64_t row = i * ballots.columns;
            const double u =
                mean_distance(ballots.ids + row, decision.similarities + row, decision.kappa);
            const Surroundings near =
                surroundings_of(e, ballots.ids + row, decision.kappa, scratch.counts);
            // A prompt without any neighbour is a strange one.
            const double chance = u == u ? strangeness(e.gate, u, near.own, near.purity) : 1.0;
            expect_models(outcomes, ballots, e, i, chance, scratch);
            for (int64_t m = 0; m < outcomes.models; ++m) {
                scratch.score[m] = static_cast<float>(scratch.value[m]);
            }
            if (out.scores) {
                memcpy(out.scores + i * outcomes.models, scratch.score,
                       static_cast<size_t>(outcomes.models) * sizeof(float));
            }
            if (decision.allowed) exclude_models(outcomes, decision.allowed, scratch);
            double all_support = 0.0;
            for (int64_t m = 0; m < outcomes.models; ++m) all_support += scratch.support[m];
            const bool fallback = all_support == 0.0 || !(u <= decision.distance_limit);
            const int64_t model =
                fallback ? decision.fallback_model : choose_expected(outcomes, e, chance, scratch);
            float other = -__builtin_inff();
            for (int64_t m = 0; m < outcomes.models; ++m) {
                if (m != model && scratch.score[m] > other) other = scratch.score[m];
            }
            out.chosen.model[i] = static_cast<int32_t>(model);
            out.chosen.score[i] = scratch.score[model];
            out.chosen.margin[i] = decision.n_allowed == 1 ? 0.0f : scratch.score[model] - other;
            out.chosen.distance[i] = static_cast<float>(u);
            out.chosen.fallback[i] = fallback;
            out.strange[i] = static_cast<float>(chance);
        }
    }
    return {};
}
