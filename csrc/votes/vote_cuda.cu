// Votes and fused decisions on a CUDA device, by the arithmetic of vote.hpp and in the order of
// kernels.cpp.
#include "votes/tally_cuda.hpp"

namespace benchrouter {
namespace {

using namespace on_device;

// ---------------------------------------------------------------------------------------- votes

// A warp gathers the votes of its queries and writes them out side by side.
template <class Tally>
__global__ void __launch_bounds__(kBlock)
    votes_kernel(Ballots in, float* votes, uint16_t* support, int64_t* fault) {
    __shared__ float gathered_votes[kBlock / kWarp][kRows * kPass];
    __shared__ uint16_t gathered_support[kBlock / kWarp][kRows * kPass];
    const Seat seat = seat_of(in);
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int thread = static_cast<int>(threadIdx.x) % kWarp, own_row = thread / kLanes;
    const int64_t first = seat.query - own_row;
    for (int64_t pass = 0; pass * kPass < in.models; ++pass) {
        Tally found;
        Distances none;
        tally_pass(in, pass, seat, found, nullptr, 0, none, fault);
        const int64_t left = in.models - pass * kPass;
        const int width = left < kPass ? static_cast<int>(left) : kPass;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            const int column = i * kLanes + seat.lane;
            if (column >= width) continue;
            gathered_votes[warp][own_row * width + column] =
                found.rounded_vote_of(i, in.prior[pass * kPass + column], in.prior_weight);
            gathered_support[warp][own_row * width + column] =
                static_cast<uint16_t>(found.support(i));
        }
        __syncwarp();
        for (int at = thread; at < kRows * width; at += kWarp) {
            const int row = at / width;
            if (first + row >= in.queries) break;
            const int64_t to = (first + row) * in.models + pass * kPass + at - row * width;
            votes[to] = gathered_votes[warp][at];
            support[to] = gathered_support[warp][at];
        }
        __syncwarp();
    }
}

// ------------------------------------------------------------------------------------ decisions

template <class Tally>
__global__ void __launch_bounds__(kBlock)
    decide_kernel(Ballots in, Decision decision, Chosen out, int64_t* fault) {
    const Seat seat = seat_of(in);
    const bool is_s3 = decision.rule == Rule::s3;
    const double prior_weight = is_s3 ? 0.0 : in.prior_weight;
    Distances distances;
    double u = 0.0;
    GridCell cell{0, 0, 0.0};
    Best best;
    float fallback_score = 0.0f;
    int supported = 0;
    for (int64_t pass = 0; pass * kPass < in.models; ++pass) {
        Tally found;
        tally_pass(in, pass, seat, found, decision.similarities, pass == 0 ? decision.kappa : 0,
                   distances, fault);
        if (pass == 0) {
            u = distances.mean();
            if (is_s3) cell = find_cell({decision.p_start, decision.p_step, decision.grid_size}, u);
        }
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            const int64_t model = pass * kPass + i * kLanes + seat.lane;
            if (model >= in.models) continue;
            if (decision.allowed && !decision.allowed[model]) continue;
            const double voted = found.vote_of(i, in.prior[model], prior_weight);
            float score = static_cast<float>(voted);
            if (is_s3) {
                const float low = decision.p_table[cell.low * in.models + model];
                const float high = decision.p_table[cell.high * in.models + model];
                const double p = interpolate(low, high, cell.fraction);
                score = static_cast<float>(s3(voted > decision.threshold, p));
            }
            supported |= found.support(i) > 0;
            if (model == decision.fallback_model) fallback_score = score;
            best.offer(key_of(score, decision.preference[model]), static_cast<int32_t>(model),
                       INT64_MIN);
        }
    }
    best.reduce();
    for (int step = kLanes / 2; step > 0; step /= 2)
        supported |= __shfl_xor_sync(kEveryone, supported, step, kLanes);
    fallback_score = from_lane(fallback_score, static_cast<int>(decision.fallback_model) % kLanes);
    if (seat.lane != 0 || !seat.live) return;

    const bool fallback = !supported || !(u <= decision.distance_limit);
    const int32_t model = fallback ? static_cast<int32_t>(decision.fallback_model) : best.model;
    const float score = fallback ? fallback_score : score_of(best.first);
    write_choice(seat.query, model, score, best, u, fallback, out);
}

}  // namespace

void votes_on_device(const Ballots& in, float* votes, uint16_t* support, const Launch& where) {
    const bool counted = in.bits && !in.weights;
    launch(counted ? votes_kernel<Counts> : votes_kernel<Sums>, "launching votes", in.queries,
           in.models, where, in, votes, support, where.fault);
}

void decide_on_device(const Ballots& in, const Decision& decision, const Chosen& chosen,
                      const Launch& where) {
    const bool counted = in.bits && !in.weights;
    launch(counted ? decide_kernel<Counts> : decide_kernel<Sums>, "launching decisions", in.queries,
           in.models, where, in, decision, chosen, where.fault);
}

}  // namespace benchrouter
