// The words of every value that is refused, on the CPU and on a device.
#pragma once

#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "common/run.hpp"

namespace benchrouter {

namespace py = pybind11;

[[noreturn]] inline void refuse_value(const std::string& message) {
    throw py::value_error(message);
}

inline std::string number(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.9g", value);
    return text;
}

inline std::string at(int64_t place) {
    return " at [" + std::to_string(place) + "]";
}

inline std::string at(int64_t row, int64_t column) {
    return " at [" + std::to_string(row) + ", " + std::to_string(column) + "]";
}

// Refuses a number that is not one of `count` records, or places.
[[noreturn]] inline void refuse_id(const char* name, const char* what, int64_t count, int64_t found,
                                   const std::string& where) {
    refuse_value(std::string(name) + " must be -1 (none) or a " + what + " in [0, " +
                 std::to_string(count) + "), got " + std::to_string(found) + where);
}

// Refuses a value that votes, or expected scores, are not made from; ids have refuse_id().
[[noreturn]] inline void refuse_number(FaultKind kind, double found, int64_t row, int64_t column) {
    const std::string what =
        kind == FaultKind::weight       ? "weights must be finite and at least 0"
        : kind == FaultKind::similarity ? "similarities must be finite where there is a neighbour"
        : kind == FaultKind::query      ? "queries must be finite"
                                        : "outcomes must be finite or NaN (missing)";
    refuse_value(what + ", got " + number(found) + at(row, column));
}

// Refuses a pair of which the similarity is not finite, if that is the fault.
inline void refuse_similarity(const Fault& fault) {
    if (fault.kind == FaultKind::similarity) {
        refuse_value("similarities must be finite, got none for query " +
                     std::to_string(fault.row) + " and record " + std::to_string(fault.column));
    }
}

// Refuses values of which one is not finite; of one dimension where `columns` is 0.
template <class T>
void check_finite(const char* name, const T* values, int64_t rows, int64_t columns = 0) {
    for (int64_t i = 0; i < rows * (columns ? columns : 1); ++i) {
        if (std::isfinite(values[i])) continue;
        refuse_value(std::string(name) + " must be finite, got " +
                     number(static_cast<double>(values[i])) +
                     (columns ? at(i / columns, i % columns) : at(i)));
    }
}

}  // namespace benchrouter
