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

// The k nearest by (similarity descending, record number ascending), the float32 rounding of
// float64 sums as rank() makes them; id -1 and similarity -inf where there are fewer.
Fault search(const Codes&, const float* records, const float* queries, int64_t n_queries, int64_t k,
             int64_t* ids, float* similarities, Run);

}  // namespace benchrouter
