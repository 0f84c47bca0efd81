// Held-out datasets with some of their own records moved into the pool: one cell per choice of
// records. Every query keeps two sorted short lists, of the other datasets and of its own; a cell
// is a merge of them, and leaving out one dataset more drops what the merged list holds of it.
#pragma once

#include <cstdint>

#include "common/run.hpp"

namespace benchrouter {

// The queries of one held-out dataset.
struct HeldOutLists {
    const int64_t* ids;         // (queries, columns) records of the other datasets, -1 = none
    const float* similarities;  // (queries, columns) descending; equal ones by record number
    int64_t queries;
    int64_t columns;
    const int64_t* own_places;      // (queries, own_columns) places in the dataset, -1 = none
    const float* own_similarities;  // (queries, own_columns) descending, as above
    int64_t own_columns;
    int64_t first;  // place in the dataset of the first query; the others follow
};

// Which records of the dataset each cell moves, by place in the dataset.
struct Moves {
    const int64_t* records;  // (places,) record numbers
    int64_t places;
    const int64_t* offsets;  // (places + 1,): place i is moved in the cells [offsets[i], ...)
    const int32_t* cells;
    int64_t n_cells;
};

struct CellSettings {
    int64_t k;
    int64_t kappa;
    float threshold;
    const float* correctness;  // (records, models) 0, 1 or NaN
    const int32_t* dataset;    // (records,)
    int64_t records;
    int64_t models;
    int64_t n_datasets;
    bool each;  // leave out each dataset in turn, too
};

// Sums over the queries that a cell does not move, added to what is there. Exclusion 0 leaves out
// only the held-out dataset, exclusion 1 + e dataset e too: (cells, exclusions[, models]).
struct CellSums {
    int64_t* distance;     // in units of 1 / kDistanceUnit
    double* s1;            // votes
    int32_t* s2;           // verdicts "correct"
    int32_t* right;        // verdicts that agree with the recorded correctness
    int32_t* unsupported;  // queries without any vote: not in the three sums above
    int32_t* of_known;     // ... whose correctness is recorded
    int32_t* of_correct;   // ... whose correctness is 1
};

// Sums of whole numbers do not depend on their order, so neither do the results on threads.
constexpr double kDistanceUnit = 1099511627776.0;  // 2^40

// A cosine, and ample rounding: the distances of 2^21 queries then sum up within int64.
constexpr float kMostSimilarity = 2.0f;

inline int64_t exclusions_of(const CellSettings& settings) {
    return settings.each ? 1 + settings.n_datasets : 1;
}

// Refuses an id or a place outside its array, by row and column of ids or own_places, and a
// similarity outside [-kMostSimilarity, kMostSimilarity], by row and column of similarities
// (columns + that of own_similarities).
Fault cells(const HeldOutLists&, const Moves&, const CellSettings&, const CellSums&, int threads);

}  // namespace benchrouter
