// What the CPU can do with neighbours: raw pointers in, raw pointers out, faults returned by value.
// Shapes have been checked by the caller (bindings/); values are checked here, before they are
// used.
#pragma once

#include <cstdint>

#include "common/run.hpp"
#include "scores/expect.hpp"

namespace benchrouter {

// What is voted on: the neighbours of every query, and what the records say of the models. Row i of
// `ids` holds the record numbers of query i, -1 = none. Outcomes are bits (with a presence mask or
// without), or scores with NaN = missing.
struct Ballots {
    const int64_t* ids;    // (queries, columns)
    const float* weights;  // (queries, columns) or null
    int64_t queries, columns;
    int64_t k;                // the first k columns vote
    const uint64_t* bits;     // (records, words) or null
    const uint64_t* present;  // (records, words) or null
    const float* scores;      // (records, models) where bits is null
    int64_t records, words, models;
    const float* prior;  // (models,) mean outcomes
    double prior_weight;
};

enum class Rule { mean, s3 };

struct Decision {
    Rule rule;
    const float* similarities;  // (queries, columns)
    int64_t kappa;              // the first kappa columns give the distance
    const int32_t* preference;  // (models,) a permutation of 0 .. models - 1
    const int64_t* order;       // (models,) models by ascending preference number
    double threshold;
    const float* p_table;  // (grid_size, models) for Rule::s3
    double p_start;
    double p_step;
    int64_t grid_size;
    double distance_limit;
    int64_t fallback_model;
    const bool* allowed;  // (models,) the models that may be chosen, or null = all
    int64_t n_allowed;    // how many they are
};

struct Chosen {
    int32_t* model;
    float* score;
    float* margin;
    float* distance;
    bool* fallback;
};

// What the rule `auto` answers.
struct Expected {
    Chosen chosen;
    float* strange;  // (queries,) chance that the prompt comes from a dataset that is not there
    float* scores;   // (queries, models) expected scores, or null
};

// All (tasks, models).
struct TaskScores {
    double *s1, *s2;
    int64_t* support;
};

Fault votes(const Ballots&, float* votes, uint16_t* support, Run);

Fault decide(const Ballots&, const Decision&, const Chosen&, Run);

// Decides by expected scores. Of the decision the rule and its table are not used.
Fault expect(const Ballots&, const Decision&, const Expectation&, const Expected&, Run);

// Queries of a task are summed in blocks of kTaskBlock, so that the sums depend on nothing else.
constexpr int64_t kTaskBlock = 1024;
Fault task_scores(const Ballots&, const int64_t* offsets, int64_t tasks, double threshold,
                  const TaskScores&, Run);

// Copies with the stores that votes are written with, to measure what memory allows.
void stream_copy(const uint8_t* source, uint8_t* target, int64_t bytes, Run);

}  // namespace benchrouter
