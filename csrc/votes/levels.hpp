// The loops over queries, compiled once for each instruction set from kernels.cpp.
#pragma once

#include "scores/expect.hpp"
#include "votes/vote.hpp"
#include "votes/vote_cpu.hpp"

namespace benchrouter {

// Kernels work on whole groups of models: arrays of one value per model are padded to this.
constexpr int64_t kModelGroup = 64;

constexpr int64_t padded_models(int64_t models, int64_t group = kModelGroup) {
    return (models + group - 1) / group * group;
}

// Queries whose votes are made in cache before they are written out: few, so that computing,
// reading neighbours and writing votes overlap.
constexpr int64_t block_queries(int64_t models) {
    const int64_t fitting = 320 / (models > 0 ? models : 1);
    return fitting > 64 ? 64 : (fitting < 4 ? 4 : fitting);
}

// Queries whose expected scores are made one after the other, and those that read the linear views
// together, at most.
constexpr int64_t kExpectQueries = 32, kMostShare = 8;

// Working memory of one thread. Arrays hold padded_models() values unless said otherwise.
struct Scratch {
    const float* prior;         // the caller's, padded with 0
    const int32_t* preference;  // the caller's, padded with INT32_MAX
    double* sum;
    double* total;
    double* value;
    double* support;
    double* s1;
    double* s2;
    double* supported;
    float* score;
    double* queries;      // kMostShare * Expectation::dim
    double* views;        // kExpectQueries * 2 * Expectation::width
    double* of_datasets;  // 2 * Expectation::width
    int32_t* counts;      // Expectation::datasets zeros
    char* block_votes;    // block_queries() * models + 2 * kModelGroup float32
    char* block_support;  // as many uint16
};

struct Kernels {
    Fault (*votes)(const Ballots&, int64_t begin, int64_t end, float* votes, uint16_t* support,
                   bool stream, Scratch&);
    Fault (*decide)(const Ballots&, const Decision&, int64_t begin, int64_t end, const Chosen&,
                    Scratch&);
    Fault (*expect)(const Ballots&, const Decision&, const Expectation&, int64_t begin, int64_t end,
                    const Expected&, Scratch&);
    // Sums of g, 1[g > threshold] and 1[support > 0] over the queries.
    Fault (*task)(const Ballots&, double threshold, int64_t begin, int64_t end, const TaskScores&,
                  Scratch&);
    // Similarities of one query (in float64, padded with 0 to a multiple of 16) to `count` records.
    void (*similarities)(const double* query, const float* records, int64_t dim, const int64_t* ids,
                         int64_t count, float* similarities);
    void (*copy)(char* to, const char* from, int64_t bytes);
};

namespace scalar {
extern const Kernels kernels;
}
#if defined(BR_X86)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

inline const Kernels& kernels_of(Simd simd) {
#if defined(BR_X86)
    if (simd == Simd::avx512) return avx512::kernels;
    if (simd == Simd::avx2) return avx2::kernels;
#endif
    (void)simd;
    return scalar::kernels;
}

}  // namespace benchrouter
