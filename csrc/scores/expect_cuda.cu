// Decisions by the rule `auto` on a CUDA device, by the arithmetic of expect.hpp and in the order
// of expect_kernel.hpp: what differs from the CPU's is the last bit of exp and log.
//
// Votes and scores of one pass stay in registers, a block to a multiprocessor. Tables of several
// passes are tallied three times: for the votes' level, for the best score, and for the choice.
#include "votes/tally_cuda.hpp"

namespace benchrouter {
namespace {

using namespace on_device;

// Record of a column of neighbours, -1 = none; what tally_pass() refuses is none.
__device__ int64_t record_at(const Ballots& in, const Seat& seat, int64_t column, int64_t used) {
    const int64_t id = id_at(in, seat, column, used);
    return id < in.records ? id : -1;
}

// Dataset of a column of neighbours, -1 = none.
__device__ int32_t dataset_at(const Expectation& e, const Ballots& in, const Seat& seat,
                              int64_t column, int64_t used) {
    const int64_t record = record_at(in, seat, column, used);
    return record < 0 ? -1 : e.dataset[record];
}

// Chance that the query is a strange one, from the distances to its first kappa neighbours.
__device__ double chance_of(const Expectation& e, const Ballots& in, const Seat& seat,
                            int64_t kappa, const Distances& distances) {
    double own = 0.0;
    int32_t most = 0;  // of this thread's neighbours' datasets, how often the commonest is there
    for (int64_t start = 0; start < kappa; start += kLanes) {
        const int64_t record = record_at(in, seat, start + seat.lane, kappa);
        const int there = record >= 0;
        const double far = there ? e.own_distance[record] : 0.0;
        const int32_t dataset = there ? e.dataset[record] : -1;
        for (int j = 0; j < kLanes; ++j) {
            const double other = from_lane(far, j);
            if (from_lane(there, j)) own = add(own, other);
        }
        int32_t same = 0;
        for (int64_t from = 0; from < kappa; from += kLanes) {
            const int32_t found = dataset_at(e, in, seat, from + seat.lane, kappa);
            for (int j = 0; j < kLanes; ++j) same += from_lane(found, j) == dataset;
        }
        if (there && same > most) most = same;
    }
    for (int step = kLanes / 2; step > 0; step /= 2) {
        const int32_t other = __shfl_xor_sync(kEveryone, most, step, kLanes);
        most = other > most ? other : most;
    }
    // A prompt without any neighbour is a strange one.
    if (distances.found == 0) return 1.0;
    const double found = distances.found;
    return strangeness(e.gate, distances.mean(), own / found, static_cast<double>(most) / found);
}

// The two views that add up over dimensions and over datasets, of this thread's models, for known
// and for strange prompts. Beyond the last model, up to a whole row of lanes, stand values that
// nobody looks at.
struct Views {
    double of[2][kPerLane];

    __device__ Views(const Expectation& e, const Ballots& in, int64_t pass, const Seat& seat) {
        const int64_t first = pass * kPass + seat.lane;
        const int64_t left = in.models - pass * kPass;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            const bool live = i * kLanes < left;
            of[0][i] = live ? e.offset[first + i * kLanes] : 0.0;
            of[1][i] = live ? e.offset[e.width + first + i * kLanes] : 0.0;
        }
        const float* row = e.linear + first;
        for (int64_t start = 0; start < e.dim; start += kLanes) {
            const int64_t own = start + seat.lane;
            const bool there = seat.live && own < e.dim;
            const double value = there ? e.queries[seat.query * e.dim + own] : 0.0;
            for (int j = 0; j < kLanes && start + j < e.dim; ++j, row += 2 * e.width) {
                const double x = from_lane(value, j);
#pragma unroll
                for (int i = 0; i < kPerLane; ++i) {
                    if (i * kLanes >= left) continue;
                    // Products of two float32 are exact, fused into the sum or not.
                    of[0][i] = fma(x, static_cast<double>(row[i * kLanes]), of[0][i]);
                    of[1][i] = fma(x, static_cast<double>(row[e.width + i * kLanes]), of[1][i]);
                }
            }
        }
        for (int half = 0; half < 2; ++half) {
            double sums[kPerLane] = {};
            int32_t neighbours = 0;
            for (int64_t start = 0; start < in.k; start += kLanes) {
                const int32_t own = dataset_at(e, in, seat, start + seat.lane, in.k);
                for (int j = 0; j < kLanes; ++j) {
                    const int32_t dataset = from_lane(own, j);
                    if (dataset < 0) continue;
                    const float* values =
                        e.of_dataset + (2 * static_cast<int64_t>(dataset) + half) * e.width + first;
                    ++neighbours;
#pragma unroll
                    for (int i = 0; i < kPerLane; ++i)
                        if (i * kLanes < left) sums[i] = add(sums[i], values[i * kLanes]);
                }
            }
            const double found = neighbours ? neighbours : 1;
#pragma unroll
            for (int i = 0; i < kPerLane; ++i) of[half][i] = add(of[half][i], sums[i] / found);
        }
    }
};

// A model to answer with, its place in the order of preference, and its score.
struct Pick {
    int32_t place;
    int32_t model;
    float score;

    __device__ void offer(const Pick& other) {
        if (other.place < place) *this = other;
    }
};

template <class Tally>
__global__ void __launch_bounds__(kBlock, 1)
    expect_kernel(Ballots in, Decision decision, Expectation e, Expected out, int64_t* fault) {
    enum Round { kLevel, kScores, kChoice };
    const Seat seat = seat_of(in);
    const bool one_pass = in.models <= kPass;
    Distances distances;
    double u = 0.0, chance = 1.0, level = 0.0;
    int supported = 0;
    Best best;
    float home = 0.0f, fallback_score = 0.0f, leads = 0.0f, least = 0.0f;
    double tolerance = 0.0;
    Pick pick{INT32_MAX, 0, 0.0f};
    double values[kPerLane];  // votes, which become expected scores
    for (int round = kLevel; round <= kChoice; ++round) {
        for (int64_t pass = 0; pass * kPass < in.models; ++pass) {
            const int64_t first = pass * kPass + seat.lane;
            const bool to_measure = round == kLevel && pass == 0;
            if (round == kLevel || !one_pass) {
                Tally found;
                tally_pass(in, pass, seat, found, decision.similarities,
                           to_measure ? decision.kappa : 0, distances, fault);
#pragma unroll
                for (int i = 0; i < kPerLane; ++i) {
                    const int64_t model = first + i * kLanes;
                    values[i] = 0.0;
                    if (model >= in.models) continue;
                    values[i] = found.vote_of(i, in.prior[model], 0.0);
                    const bool counts = !decision.allowed || decision.allowed[model];
                    supported |= counts && found.support(i) > 0;
                }
            }
            if (to_measure) {
                u = distances.mean();
                chance = chance_of(e, in, seat, decision.kappa, distances);
            }
            if (round == kLevel) {
#pragma unroll
                for (int i = 0; i < kPerLane; ++i) {
                    const int64_t model = first + i * kLanes;
                    const double part =
                        model < in.models ? mul(e.share[model], add(values[i], -e.standing[model]))
                                          : 0.0;
                    for (int j = 0; j < kLanes; ++j) {
                        if (model - seat.lane + j < in.models)
                            level = add(level, from_lane(part, j));
                    }
                }
                continue;
            }
            if (round == kScores || !one_pass) {
                const Views views(e, in, pass, seat);
#pragma unroll
                for (int i = 0; i < kPerLane; ++i) {
                    const int64_t model = first + i * kLanes;
                    if (model >= in.models) continue;
                    const double standing = e.standing[model];
                    const double vote = add(add(values[i], -standing), -level);
                    values[i] = static_cast<float>(
                        expected(e, standing, vote, level, views.of[0][i], views.of[1][i], chance));
                }
            }
#pragma unroll
            for (int i = 0; i < kPerLane; ++i) {
                const int64_t model = first + i * kLanes;
                if (model >= in.models) continue;
                const bool may_be = !decision.allowed || decision.allowed[model];
                const int32_t place = decision.preference[model];
                const float score = static_cast<float>(values[i]);
                if (round == kScores) {
                    if (seat.live && out.scores) out.scores[seat.query * in.models + model] = score;
                    if (!may_be) continue;
                    if (model == e.home) home = score;
                    if (model == decision.fallback_model) fallback_score = score;
                    best.offer(key_of(score, place), static_cast<int32_t>(model), INT64_MIN);
                } else if (may_be && (model == e.home ? home >= least
                                                      : is_equal(e, model, score, home, leads,
                                                                 least, tolerance))) {
                    pick.offer({place, static_cast<int32_t>(model), score});
                }
            }
        }
        if (round != kScores) continue;
        best.reduce();
        home = from_lane(home, static_cast<int>(e.home % kLanes));
        leads = raised(home, of_kind(e.margin, chance));
        tolerance = of_kind(e.tolerance, chance);
        least = lowered(counted(score_of(best.first), home, leads), tolerance);
        pick = {INT32_MAX, static_cast<int32_t>(e.home), home};
    }
    for (int step = kLanes / 2; step > 0; step /= 2) {
        supported |= __shfl_xor_sync(kEveryone, supported, step, kLanes);
        const int32_t place = __shfl_xor_sync(kEveryone, pick.place, step, kLanes);
        const int32_t model = __shfl_xor_sync(kEveryone, pick.model, step, kLanes);
        const float score = __shfl_xor_sync(kEveryone, pick.score, step, kLanes);
        pick.offer({place, model, score});
    }
    fallback_score = from_lane(fallback_score, static_cast<int>(decision.fallback_model % kLanes));
    if (seat.lane != 0 || !seat.live) return;

    const bool fallback = !supported || !(u <= decision.distance_limit);
    if (fallback) pick = {0, static_cast<int32_t>(decision.fallback_model), fallback_score};
    out.strange[seat.query] = static_cast<float>(chance);
    write_choice(seat.query, pick.model, pick.score, best, u, fallback, out.chosen);
}

}  // namespace

void expect_on_device(const Ballots& in, const Decision& decision, const Expectation& expectation,
                      const Expected& expected, const Launch& where) {
    launch(in.bits ? expect_kernel<Counts> : expect_kernel<Sums>, "launching expected scores",
           in.queries, in.models, where, in, decision, expectation, expected, where.fault);
}

}  // namespace benchrouter
