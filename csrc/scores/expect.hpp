// The rule `auto`: what it has learnt of a benchmark, and the arithmetic that turns what a prompt's
// neighbourhood says into every model's expected score. One definition for the host and the device.
//
//   expected_m = standing_m + (1 - strange) known_m + strange strange_m
//
// where known and strange are sums of three views of the prompt, each weighed as it paid on
// held-out records: left out alone (known), or with their whole dataset (strange). The views: the
// votes of the nearest records, the datasets that these come from, and a linear function of the
// embedding.
#pragma once

#include <math.h>
#include <stdint.h>

#include "votes/vote.hpp"

namespace benchrouter {

// How far a distance counts before its logarithm is taken: duplicates have nearly none.
constexpr double kDistanceScale = 0.05;

// Rows of `of_dataset` and `linear` hold 2 * width values, first for known, then for strange
// prompts; what stands beyond the models is 0.
struct Expectation {
    const float* queries;  // (queries, dim)
    int64_t dim;
    const int32_t* dataset;  // (records,) dataset of every record
    int64_t datasets;
    const float* own_distance;  // (records,) distance of every record to the others
    const double* standing;     // (models,)
    const double* share;        // (models,) weights of the contenders, adding up to 1
    double apart[2];            // slopes of the votes: differences between models
    double level[2];            // slopes of the votes: what is common to the contenders
    const float* of_dataset;    // (datasets, 2 * width)
    const float* linear;        // (dim, 2 * width)
    const double* offset;       // (2 * width,)
    int64_t width;
    double gate[4];       // of the logistic regression behind `strange`
    double margin[2];     // the best on average is kept unless another leads by as much
    double tolerance[2];  // expected scores that differ by less are equal
    int64_t home;         // the best on average
};

// The chance that a prompt comes from a dataset that the benchmark lacks.
BR_HD double strangeness(const double* gate, double u, double own, double purity) {
    double z = gate[0];
    z = add(z, mul(gate[1], log(add(u, kDistanceScale))));
    z = add(z, mul(gate[2], log(add(own, kDistanceScale))));
    z = add(z, mul(gate[3], purity));
    return 1.0 / add(1.0, exp(-z));
}

// A value that is one thing for known prompts and another for strange ones.
BR_HD double blend(double known, double strange, double chance) {
    return add(mul(add(1.0, -chance), known), mul(chance, strange));
}

// Expected score of one model: its vote and the votes' level are deviations from standings, the
// others are the sums of the other two views.
BR_HD double expected(const Expectation& e, double standing, double vote, double level,
                      double known, double strange, double chance) {
    const double near = add(add(mul(e.apart[0], vote), mul(e.level[0], level)), known);
    const double far = add(add(mul(e.apart[1], vote), mul(e.level[1], level)), strange);
    return add(standing, blend(near, far, chance));
}

// Margin or tolerance of a prompt: a prompt is taken for what it more likely is.
BR_HD double of_kind(const double* values, double chance) {
    return chance > 0.5 ? values[1] : values[0];
}

// The score from which a model leads the best on average, and the least that equals the best.
BR_HD float raised(float score, double margin) {
    return static_cast<float>(add(static_cast<double>(score), margin));
}
BR_HD float lowered(float best, double tolerance) {
    return static_cast<float>(add(static_cast<double>(best), -tolerance));
}

// A score as it counts: above that of the best on average only where it leads.
BR_HD float counted(float score, float home, float leads) {
    return score >= leads || score < home ? score : home;
}

// Whether a model other than the best on average may be chosen for its cost. Where leads over it do
// not count, the neighbourhood is not trusted, and the standings must be equal too.
BR_HD bool is_equal(const Expectation& e, int64_t model, float score, float home, float leads,
                    float least, double tolerance) {
    if (counted(score, home, leads) < least) return false;
    if (score >= leads) return true;
    if (!(tolerance > 0.0)) return false;
    return leads <= home || e.standing[model] >= add(e.standing[e.home], -tolerance);
}

}  // namespace benchrouter
