// The arithmetic of votes, scores and distances: one definition for the host and for the device.
//
// Every product and sum goes through mul() and add(): on the device they round separately, as the
// host does under -ffp-contract=off, so that both give the same bits on 0/1 correctness.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define BR_HD __host__ __device__ __forceinline__
#else
// Always inlined: the same source is compiled for several instruction sets, and an out-of-line copy
// built for the widest of them must never be the one that the linker keeps.
#define BR_HD inline __attribute__((always_inline))
#endif

namespace benchrouter {

BR_HD double mul(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

BR_HD double add(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dadd_rn(a, b);
#else
    return a + b;
#endif
}

// The floor of a cosine distance (METHOD.md, "Words").
constexpr double kSmallestDistance = 1e-7;

// One model's vote: the weighted mean of the present outcomes, drawn by `prior_weight`
// pseudo-records towards the prior; the prior itself where nothing is present, or where all that is
// weighs nothing.
// Support is a count; as a double, so that loops over models hold one type.
BR_HD double vote(double sum, double total, double support, double prior, double prior_weight) {
    const double weight = add(total, prior_weight);
    const bool empty = (support == 0.0) | (weight == 0.0);
    const double drawn = add(sum, mul(prior_weight, prior)) / (empty ? 1.0 : weight);
    return empty ? prior : drawn;
}

// The vote of counted 0/1 outcomes without a prior. Both counts are at most 65535, so this float32
// quotient equals the float64 quotient rounded once (53 >= 2 * 24 + 2: double rounding is
// innocuous).
BR_HD float vote_of_counts(int32_t correct, int32_t support, float prior) {
    const float mean = static_cast<float>(correct) / static_cast<float>(support == 0 ? 1 : support);
    return support == 0 ? prior : mean;
}

// Cosine distance of one neighbour.
BR_HD double distance(float similarity) {
    const double d = add(1.0, -static_cast<double>(similarity));
    return d > kSmallestDistance ? d : kSmallestDistance;
}

// S3 of one query and model (arXiv 2309.15789, eq. 7, with the predictor's 0/1 answer):
// the chance of success, when the predictor is right with chance p.
BR_HD double s3(bool predicted, double p) {
    return predicted ? p : add(1.0, -p);
}

// A table over an even grid: row i holds the values at start + i * step.
struct Grid {
    double start;
    double step;
    int64_t size;
};

// Where a value falls between two rows of a grid; both ends are held outside it.
struct GridCell {
    int64_t low;
    int64_t high;
    double fraction;
};

BR_HD GridCell find_cell(const Grid& grid, double value) {
    const double position = add(value, -grid.start) / grid.step;
    if (position != position) return {0, 0, position};
    if (position <= 0.0) return {0, 0, 0.0};
    if (position >= static_cast<double>(grid.size - 1)) return {grid.size - 1, grid.size - 1, 0.0};
    const int64_t low = static_cast<int64_t>(position);
    return {low, low + 1, add(position, -static_cast<double>(low))};
}

BR_HD double interpolate(float low, float high, double fraction) {
    const double from = low;
    return add(from, mul(fraction, add(static_cast<double>(high), -from)));
}

}  // namespace benchrouter
