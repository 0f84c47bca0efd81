// What the kernels of vote_cuda.cu and expect_cuda.cu share: how threads divide queries and models,
// tallies, distances, the best two of some scores, and launching.
//
// Eight threads serve a query. Each of them loads the id and the bit row of every eighth neighbour
// and hands them to the others by shuffles, so that both are read once; each tallies every eighth
// of 64 models in registers. Tables of more models take several passes.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "votes/vote.hpp"
#include "votes/vote_cuda.hpp"

namespace benchrouter {
namespace on_device {

constexpr int kLanes = 8;              // threads of a query
constexpr int kPerLane = 8;            // models of a thread in one pass
constexpr int kPass = 64;              // models of one pass: those of one word of bits
constexpr int kWarp = 32;              // threads
constexpr int kBlock = 256;            // threads
constexpr int kRows = kWarp / kLanes;  // queries of a warp
constexpr unsigned kEveryone = 0xffffffffu;

static_assert(kLanes * kPerLane == kPass, "a pass is shared out whole");

enum Refused { kRefusedId, kRefusedWeight, kRefusedSimilarity, kRefusedScore };

// What this thread works on. Threads beyond the last query go along with their warp.
struct Seat {
    int64_t query;
    int lane;
    bool live;
};

inline __device__ Seat seat_of(const Ballots& in) {
    const int64_t query =
        (static_cast<int64_t>(blockIdx.x) * kBlock + static_cast<int64_t>(threadIdx.x)) / kLanes;
    return {query, static_cast<int>(threadIdx.x) % kLanes, query < in.queries};
}

// The value of the seat's `lane`-th thread.
template <class T>
__device__ T from_lane(T value, int lane) {
    return __shfl_sync(kEveryone, value, lane, kLanes);
}

inline __device__ void refuse(int64_t* fault, const Ballots& in, int64_t row, Refused kind,
                              int64_t column) {
    const int64_t place = (row * kDeviceFaultKinds + kind) * in.columns + column;
    atomicMin(reinterpret_cast<long long*>(fault), static_cast<long long>(place));
}

inline __device__ bool is_finite(float x) {
    return x - x == 0.0f;
}

// ------------------------------------------------------------------------------------- tallying

// One column of neighbours for each thread of a query.
struct Column {
    int64_t number;
    int64_t id;  // -1 = none
};

// Counters of the kPerLane models of a thread: bytes, emptied into 16 bits before they are full. A
// thread's models are bits 0, 8, 16, ... of a row that is shifted by its lane.
struct Counters {
    uint64_t bytes = 0, even = 0, odd = 0;

    __device__ void add(uint64_t row, int lane) { bytes += (row >> lane) & 0x0101010101010101ull; }
    __device__ void empty_bytes() {
        constexpr uint64_t wide = 0x00ff00ff00ff00ffull;
        even += bytes & wide;
        odd += (bytes >> 8) & wide;
        bytes = 0;
    }
    __device__ int32_t count(int i) const {
        return static_cast<int32_t>(((i % 2 ? odd : even) >> (i / 2 * 16)) & 0xffff);
    }
};

// 0/1 outcomes, counted.
struct Counts {
    Counters correct, present;
    int rounds = 0;

    __device__ void add(const Ballots& in, int64_t pass, const Seat& seat, const Column& column,
                        int64_t*) {
        uint64_t bits = 0, mask = 0;
        if (column.id >= 0) {
            const int64_t word = column.id * in.words + pass;
            mask = in.present ? in.present[word] : ~uint64_t{0};
            bits = in.bits[word] & mask;
        }
#pragma unroll
        for (int j = 0; j < kLanes; ++j) {
            correct.add(from_lane(bits, j), seat.lane);
            if (in.present) present.add(from_lane(mask, j), seat.lane);
        }
        if (!in.present) {
            const int first = static_cast<int>(threadIdx.x) % kWarp - seat.lane;
            const unsigned there = __ballot_sync(kEveryone, column.id >= 0) >> first;
            present.bytes += __popc(there & 0xffu) * 0x0101010101010101ull;
        }
        if (++rounds == 255 / kLanes) finish();
    }
    __device__ void finish() {
        correct.empty_bytes();
        present.empty_bytes();
        rounds = 0;
    }
    __device__ int32_t support(int i) const { return present.count(i); }
    __device__ double vote_of(int i, float prior, double prior_weight) const {
        const double all = present.count(i);
        return vote(correct.count(i), all, all, prior, prior_weight);
    }
    __device__ float rounded_vote_of(int i, float prior, double prior_weight) const {
        return prior_weight == 0.0 ? vote_of_counts(correct.count(i), present.count(i), prior)
                                   : static_cast<float>(vote_of(i, prior, prior_weight));
    }
};

// Weighted outcomes, and scores: summed in float64 in the order of the columns.
struct Sums {
    double sum[kPerLane] = {}, total[kPerLane] = {};
    int32_t present[kPerLane] = {};

    __device__ void add(const Ballots& in, int64_t pass, const Seat& seat, const Column& column,
                        int64_t* fault) {
        uint64_t bits = 0, mask = ~uint64_t{0};
        if (in.bits && column.id >= 0) {
            const int64_t word = column.id * in.words + pass;
            if (in.present) mask = in.present[word];
            bits = in.bits[word];
        }
        float weight = 1.0f;
        if (in.weights && seat.live && column.number < in.k) {
            weight = in.weights[seat.query * in.columns + column.number];
            if (!(weight >= 0.0f && is_finite(weight)))
                refuse(fault, in, seat.query, kRefusedWeight, column.number);
        }
        for (int j = 0; j < kLanes; ++j) {
            const int64_t record = from_lane(column.id, j);
            const double w = from_lane(weight, j);
            const uint64_t row = from_lane(bits, j), there = from_lane(mask, j);
            if (record < 0) continue;
#pragma unroll
            for (int i = 0; i < kPerLane; ++i) {
                const int64_t model = pass * kPass + i * kLanes + seat.lane;
                if (model >= in.models) continue;
                const int bit = i * kLanes + seat.lane;
                const float value = in.bits ? static_cast<float>((row >> bit) & 1)
                                            : in.scores[record * in.models + model];
                const bool known = in.bits ? (there >> bit) & 1 : value == value;
                if (!known) continue;
                if (!is_finite(value))
                    refuse(fault, in, seat.query, kRefusedScore, column.number - seat.lane + j);
                sum[i] = benchrouter::add(sum[i], mul(w, value));
                total[i] = benchrouter::add(total[i], w);
                ++present[i];
            }
        }
    }
    __device__ void finish() {}
    __device__ int32_t support(int i) const { return present[i]; }
    __device__ double vote_of(int i, float prior, double prior_weight) const {
        return vote(sum[i], total[i], present[i], prior, prior_weight);
    }
    __device__ float rounded_vote_of(int i, float prior, double prior_weight) const {
        return static_cast<float>(vote_of(i, prior, prior_weight));
    }
};

// Distances of a query to its first neighbours, summed in the order of the columns by each thread.
struct Distances {
    double sum = 0.0;
    int32_t found = 0;

    __device__ void add(const Ballots& in, const float* similarities, int64_t kappa,
                        const Seat& seat, const Column& column, int64_t* fault) {
        const int there = column.id >= 0 && column.number < kappa;
        double far = 0.0;
        if (there) {
            const float similarity = similarities[seat.query * in.columns + column.number];
            if (!is_finite(similarity))
                refuse(fault, in, seat.query, kRefusedSimilarity, column.number);
            far = distance(similarity);
        }
        for (int j = 0; j < kLanes; ++j) {
            const double other = from_lane(far, j);
            if (!from_lane(there, j)) continue;
            sum = benchrouter::add(sum, other);
            ++found;
        }
    }
    __device__ double mean() const { return sum / static_cast<double>(found); }
};

inline __device__ int64_t id_at(const Ballots& in, const Seat& seat, int64_t column, int64_t used) {
    return seat.live && column < used ? in.ids[seat.query * in.columns + column] : -1;
}

// Tallies the models of one pass; measures the distance to the first kappa neighbours on the way.
template <class Tally>
__device__ void tally_pass(const Ballots& in, int64_t pass, const Seat& seat, Tally& tally,
                           const float* similarities, int64_t kappa, Distances& distances,
                           int64_t* fault) {
    const int64_t used = kappa > in.k ? kappa : in.k;
    int64_t next = id_at(in, seat, seat.lane, used);
    for (int64_t start = 0; start < used; start += kLanes) {
        Column column{start + seat.lane, next};
        next = id_at(in, seat, column.number + kLanes, used);  // on its way meanwhile
        if (column.id < -1 || column.id >= in.records) {
            refuse(fault, in, seat.query, kRefusedId, column.number);
            column.id = -1;
        }
        if (start < kappa) distances.add(in, similarities, kappa, seat, column, fault);
        if (start >= in.k) continue;
        if (column.number >= in.k) column.id = -1;
        tally.add(in, pass, seat, column, fault);
    }
    tally.finish();
}

// ------------------------------------------------------------------------------------- best scores

// Orders models by (score, then preference), as find_best() of kernels.cpp does: a score, in an
// order of signed integers, above the reversed preference. No two models have equal keys.
inline __device__ int64_t key_of(float score, int32_t preference) {
    int32_t bits = __float_as_int(score + 0.0f);  // -0 + 0 = 0: equal scores have equal bits
    bits ^= (bits >> 31) & INT32_MAX;
    return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(bits)) << 32 |
                                (INT32_MAX - static_cast<uint32_t>(preference)));
}

inline __device__ float score_of(int64_t key) {
    int32_t bits = static_cast<int32_t>(key >> 32);
    bits ^= (bits >> 31) & INT32_MAX;
    return __int_as_float(bits);
}

struct Best {
    int64_t first = INT64_MIN, second = INT64_MIN;
    int32_t model = 0;

    __device__ void offer(int64_t key, int32_t of_model, int64_t key_after) {
        const int64_t lower = key < first ? key : first;
        if (key > first) {
            first = key;
            model = of_model;
        }
        second = lower > second ? lower : second;
        second = key_after > second ? key_after : second;
    }
    // The best of all threads of the query.
    __device__ void reduce() {
        for (int step = kLanes / 2; step > 0; step /= 2) {
            const int64_t other = __shfl_xor_sync(kEveryone, first, step, kLanes);
            const int64_t after = __shfl_xor_sync(kEveryone, second, step, kLanes);
            const int32_t of_model = __shfl_xor_sync(kEveryone, model, step, kLanes);
            offer(other, of_model, after);
        }
    }
};

inline __device__ void write_choice(int64_t query, int32_t model, float score, const Best& best,
                                    double u, bool fallback, const Chosen& out) {
    const float other = score_of(model == best.model ? best.second : best.first);
    const bool alone = best.second == INT64_MIN;  // no other model was offered
    out.model[query] = model;
    out.score[query] = score;
    out.margin[query] = alone ? 0.0f : score - other;
    out.distance[query] = static_cast<float>(u);
    out.fallback[query] = fallback;
}

// --------------------------------------------------------------------------------------- launching

inline void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    throw std::runtime_error(std::string(what) + " failed: " + cudaGetErrorString(code));
}

// Makes a device the current one, and the one before it again.
class CurrentDevice {
public:
    explicit CurrentDevice(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~CurrentDevice() { cudaSetDevice(before_); }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

private:
    int before_ = 0;
};

template <class... Arguments>
void launch(void (*kernel)(Arguments...), const char* what, int64_t queries, int64_t models,
            const Launch& where, Arguments... arguments) {
    if (queries == 0 || models == 0) return;
    const CurrentDevice current(where.device);
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>((queries * kLanes + kBlock - 1) / kBlock));
    config.blockDim = dim3(kBlock);
    config.stream = static_cast<cudaStream_t>(where.stream);
    check(cudaLaunchKernelEx(&config, kernel, arguments...), what);
}

}  // namespace on_device
}  // namespace benchrouter
