// Exact nearest records. Every record is compared by codes of 8 bits, whose products are off by no
// more than a known bound; those that the bound does not rule out are compared in float64.
#pragma once

#include <cstdint>

#include "common/run.hpp"

namespace benchrouter {

constexpr int64_t kGroupRecords = 64;
constexpr int64_t kStepValues = 4;       // summed by one instruction
constexpr int64_t kMostCoded = 1 << 16;  // dimensions whose sums fit into int32
constexpr int64_t kCodeOfZero = 128;

constexpr int64_t code_groups(int64_t records) {
    return (records + kGroupRecords - 1) / kGroupRecords;
}

constexpr int64_t code_steps(int64_t dim) {
    return (dim + kStepValues - 1) / kStepValues;
}

// record = scale * (code - kCodeOfZero) + something of norm error. In groups of records, so that
// the same four values of several records follow each other.
struct Codes {
    const uint8_t* values;  // (groups, steps, kGroupRecords, kStepValues)
    const float* scales;    // (groups, kGroupRecords)
    const float* errors;    // same; infinite if the record is not finite, -infinite where none is
    int64_t records, dim;
    double largest_norm;   // of a coded record
    double largest_error;  // that is finite
};

// Fills values, scales and errors; the numbers beside them are returned.
struct CodeBounds {
    double norm, error;
};
CodeBounds encode_records(const float* records, int64_t n_records, int64_t dim, uint8_t* values,
                          float* scales, float* errors, Run);

// Queries, the records that they are compared with, and what is found.
struct SearchTask {
    const float* queries;  // (n_queries, dim)
    int64_t n_queries;
    const float* records;  // (n_records, dim)
    int64_t n_records, dim, k;
    int64_t* ids;         // (n_queries, k), -1 where there are fewer
    float* similarities;  // (n_queries, k), -inf where there are fewer
};

// The k nearest by (similarity descending, record number ascending): among the candidates of each
// query (n_queries, columns), -1 = none, by the float32 rounding of float64 sums ...
Fault rank(const int64_t* candidates, int64_t columns, const SearchTask&, Run);

// ... or among all records, which codes stand for; the same similarities.
Fault search(const Codes&, const SearchTask&, Run);

}  // namespace benchrouter
