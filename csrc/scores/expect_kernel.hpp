// The loop over queries of the rule `auto` (expect.hpp). Included by votes/kernels.cpp, whose
// votes, distances and checks it uses.

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

// sum + a * b, where the product is exact: fused or not, the same bits.
inline Lanes add_exact(Lanes sum, Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return reinterpret_cast<Lanes>(_mm512_fmadd_pd(reinterpret_cast<__m512d>(a),
                                                   reinterpret_cast<__m512d>(b),
                                                   reinterpret_cast<__m512d>(sum)));
#else
    return sum + a * b;
#endif
}

// Queries that share the reading of `linear`, and registers that sum the columns of one of them; a
// lone query sums more of them at a time. Rows hold whole groups of 32 columns.
constexpr int kShare = kWidth == 8 ? kMostShare : 4, kSharedSums = 2,
              kLoneSums = kWidth == 8 ? 4 : 8;
static_assert(32 % (kSharedSums * kWidth) == 0 && 32 % (kLoneSums * kWidth) == 0, "no rest");

// sums = offset + queries * linear, added up in the order of the dimensions. Queries have been
// widened: rows of dim float64.
template <int kQueries, int kSums>
void linear_views(const Expectation& e, const double* queries, double* sums) {
    for (int64_t m = 0; m < 2 * e.width; m += kSums * kWidth) {
        Lanes parts[kQueries][kSums];
        for (int q = 0; q < kQueries; ++q) memcpy(parts[q], e.offset + m, sizeof parts[q]);
        const float* row = e.linear + m;
        for (int64_t i = 0; i < e.dim; ++i, row += 2 * e.width) {
            Lanes values[kSums];
            for (int part = 0; part < kSums; ++part) values[part] = widen(row + part * kWidth);
            for (int q = 0; q < kQueries; ++q) {
                const Lanes x = queries[q * e.dim + i] - Lanes{};  // - 0 leaves -0 alone
                for (int part = 0; part < kSums; ++part) {
                    parts[q][part] = add_exact(parts[q][part], x, values[part]);
                }
            }
        }
        for (int q = 0; q < kQueries; ++q) {
            memcpy(sums + q * 2 * e.width + m, parts[q], sizeof parts[q]);
        }
    }
}

// The linear views of some queries, at most kExpectQueries, to rows of scratch.views.
void linear_views_of(const Expectation& e, int64_t begin, int64_t end, const Scratch& scratch) {
    double* sums = scratch.views;
    for (int64_t i = begin; i < end;) {
        const int64_t some = end - i < kShare ? 1 : kShare;
        const float* rows = e.queries + i * e.dim;
        for (int64_t at = 0; at < some * e.dim; ++at) scratch.queries[at] = rows[at];
        some == 1 ? linear_views<1, kLoneSums>(e, scratch.queries, sums)
                  : linear_views<kShare, kSharedSums>(e, scratch.queries, sums);
        i += some;
        sums += some * 2 * e.width;
    }
}

// Refuses queries with a value that is not finite: no sum over them is.
Fault check_queries(const Expectation& e, int64_t begin, int64_t end, const Scratch& scratch) {
    for (int64_t i = begin; i < end; ++i) {
        if (is_number(scratch.views[(i - begin) * 2 * e.width])) continue;
        for (int64_t d = 0; d < e.dim; ++d) {
            if (!is_number(e.queries[i * e.dim + d])) return {FaultKind::query, i, d};
        }
    }
    return {};
}

// sums = what the datasets of a query's neighbours add together, in the order of the neighbours.
inline void add_datasets(const Expectation& e, const int64_t* ids, int64_t k, double* sums) {
    for (int64_t m = 0; m < 2 * e.width; m += kLoneSums * kWidth) {
        Lanes parts[kLoneSums] = {};
        for (int64_t j = 0; j < k; ++j) {
            if (ids[j] < 0) continue;
            const float* row = e.of_dataset + e.dataset[ids[j]] * 2 * e.width + m;
            for (int part = 0; part < kLoneSums; ++part) parts[part] += widen(row + part * kWidth);
        }
        memcpy(sums + m, parts, sizeof parts);
    }
}

// Expected scores of all models on one query, after value_votes(); scratch.value becomes them.
void expect_models(const Ballots& in, const Expectation& e, int64_t query, const double* views,
                   double chance, Scratch& scratch) {
    const int64_t* ids = in.ids + query * in.columns;
    double* const datasets = scratch.of_datasets;
    add_datasets(e, ids, in.k, datasets);
    const int32_t neighbours = count_neighbours(ids, in.k);
    const double found = neighbours ? neighbours : 1;
    double level = 0.0;
    for (int64_t m = 0; m < in.models; ++m) {
        level = add(level, mul(e.share[m], add(scratch.value[m], -e.standing[m])));
    }
    for (int64_t m = 0; m < in.models; ++m) {
        const double known = add(views[m], datasets[m] / found);
        const double strange = add(views[e.width + m], datasets[e.width + m] / found);
        const double vote = add(add(scratch.value[m], -e.standing[m]), -level);
        scratch.value[m] = expected(e, e.standing[m], vote, level, known, strange, chance);
    }
}

// Chooses the most preferred model within the tolerance of the largest score that counts.
int64_t choose_expected(const Ballots& in, const Decision& decision, const Expectation& e,
                        double chance, const Scratch& scratch) {
    const double tolerance = of_kind(e.tolerance, chance);
    const float home = scratch.score[e.home], leads = raised(home, of_kind(e.margin, chance));
    float best = home;
    for (int64_t m = 0; m < in.models; ++m) {
        const float score = counted(scratch.score[m], home, leads);
        best = score > best ? score : best;
    }
    const float least = lowered(best, tolerance);
    int64_t model = e.home;
    int32_t place = home >= least ? scratch.preference[e.home] : INT32_MAX;
    for (int64_t m = 0; m < in.models; ++m) {
        if (m == e.home || (decision.allowed && !decision.allowed[m])) continue;
        if (scratch.preference[m] < place &&
            is_equal(e, m, scratch.score[m], home, leads, least, tolerance)) {
            model = m;
            place = scratch.preference[m];
        }
    }
    return model;
}

Fault expect(const Ballots& in, const Decision& decision, const Expectation& e, int64_t begin,
             int64_t end, const Expected& out, Scratch& scratch) {
    constexpr int64_t step = kExpectQueries;
    const int64_t used = in.k > decision.kappa ? in.k : decision.kappa;
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        const Checked ids = check_ids(in, used, from, to);
        if (ids.fault) return ids.fault;
        if (const Fault fault = check_similarities(in, decision, from, to)) return fault;
        linear_views_of(e, from, to, scratch);
        if (const Fault fault = check_queries(e, from, to, scratch)) return fault;
        for (int64_t i = from; i < to; ++i) {
            if (i + kAhead < to) prefetch_rows(in, i + kAhead);
            if (const Fault fault = tally(in, i, scratch)) return fault;
            value_votes(in, 0.0, scratch);
            const int64_t row = i * in.columns;
            const double u =
                mean_distance(in.ids + row, decision.similarities + row, decision.kappa);
            const Surroundings near =
                surroundings_of(e, in.ids + row, decision.kappa, scratch.counts);
            // A prompt without any neighbour is a strange one.
            const double chance = u == u ? strangeness(e.gate, u, near.own, near.purity) : 1.0;
            const double* views = scratch.views + (i - from) * 2 * e.width;
            expect_models(in, e, i, views, chance, scratch);
            for (int64_t m = 0; m < in.models; ++m) {
                scratch.score[m] = static_cast<float>(scratch.value[m]);
            }
            if (out.scores) {
                memcpy(out.scores + i * in.models, scratch.score,
                       static_cast<size_t>(in.models) * sizeof(float));
            }
            if (decision.allowed) exclude_models(in, decision.allowed, scratch);
            double all_support = 0.0;
            for (int64_t m = 0; m < in.models; ++m) all_support += scratch.support[m];
            const bool fallback = all_support == 0.0 || !(u <= decision.distance_limit);
            const int64_t model = fallback ? decision.fallback_model
                                           : choose_expected(in, decision, e, chance, scratch);
            float other = -__builtin_inff();
            for (int64_t m = 0; m < in.models; ++m) {
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
