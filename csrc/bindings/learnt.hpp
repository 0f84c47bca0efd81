// What the rule `auto` learnt (expect.hpp), put together from arrays of the host or of a device
// whose shapes are checked here.
#pragma once

#include <array>
#include <cmath>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/checks.hpp"
#include "scores/expect.hpp"

namespace benchrouter {

using Pair = std::array<double, 2>;

// Expectation::width must be whole groups of this many float32.
constexpr int64_t kColumns = 16;

struct LearntArrays {
    View<const int32_t, 1> dataset;
    View<const float, 1> own_distance;
    View<const double, 1> standing, share;
    View<const float, 2> of_dataset, linear;
    View<const double, 1> offset;

    int64_t records() const { return dataset.shape[0]; }
    int64_t models() const { return standing.shape[0]; }
    int64_t dim() const { return linear.shape[0]; }
    std::vector<Extent> extents() const {
        return {extent(dataset),    extent(own_distance), extent(standing), extent(share),
                extent(of_dataset), extent(linear),       extent(offset)};
    }
};

struct LearntNumbers {
    Pair apart, level;
    std::array<double, 4> gate;
    Pair margin, tolerance;
};

inline void check_not_negative(const char* name, const Pair& values) {
    for (int i = 0; i < 2; ++i) {
        if (!(values[i] >= 0.0)) {
            refuse_value(std::string(name) + " must be at least 0, got " + number(values[i]) +
                         at(i));
        }
    }
}

// Of no queries yet; its home is the first model.
inline Expectation checked_expectation(const LearntArrays& a, const LearntNumbers& n) {
    const int64_t width = a.offset.shape[0] / 2, models = a.models();
    if (a.offset.shape[0] % (2 * kColumns) != 0 || width < models) {
        refuse_value("offset must hold 2 × " + std::to_string(kColumns) +
                     "·n values, at least 2 × " + std::to_string(models) + " models, got " +
                     std::to_string(a.offset.shape[0]));
    }
    expect_length("own_distance", "values", a.own_distance.shape[0], "dataset has", a.records());
    expect_length("share", "values", a.share.shape[0], "standing has", models);
    expect_length("of_dataset", "columns", a.of_dataset.shape[1], "offset has", 2 * width);
    expect_length("linear", "columns", a.linear.shape[1], "offset has", 2 * width);
    check_finite("apart", n.apart.data(), 2);
    check_finite("level", n.level.data(), 2);
    check_finite("gate", n.gate.data(), 4);
    check_not_negative("margin", n.margin);
    check_not_negative("tolerance", n.tolerance);
    return {nullptr,
            a.dim(),
            a.dataset.data,
            a.of_dataset.shape[0],
            a.own_distance.data,
            a.standing.data,
            a.share.data,
            {n.apart[0], n.apart[1]},
            {n.level[0], n.level[1]},
            a.of_dataset.data,
            a.linear.data,
            a.offset.data,
            width,
            {n.gate[0], n.gate[1], n.gate[2], n.gate[3]},
            {n.margin[0], n.margin[1]},
            {n.tolerance[0], n.tolerance[1]},
            0};
}

// Refuses what was learnt of other records or models, and a home that may not be chosen.
inline void check_learnt(const LearntArrays& learnt, int64_t records, int64_t models,
                         int64_t home) {
    expect_length("standing", "values", learnt.models(), "outcomes has models:", models);
    expect_length("dataset", "values", learnt.records(), "outcomes has records:", records);
    if (home < 0 || home >= models) {
        refuse_value("home must be in [0, " + std::to_string(models) + "), got " +
                     std::to_string(home));
    }
}

}  // namespace benchrouter
