// The arguments and outputs that several functions of benchrouter._core share, checked.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "votes/vote_cpu.hpp"

namespace benchrouter {

using Floats2 = View<const float, 2>;
using Ids2 = View<const int64_t, 2>;

// The arguments that every kind of vote has in common, checked.
struct Inputs {
    Ids2 neighbours;
    Floats2 weights, scores;
    View<const uint64_t, 2> bits, present;
    View<const float, 1> prior;
    Ballots ballots{};

    int64_t queries() const { return ballots.queries; }
    int64_t models() const { return ballots.models; }
    std::vector<Extent> extents() const {
        return {extent(neighbours), extent(weights), extent(scores),
                extent(bits),       extent(present), extent(prior)};
    }
};

Inputs checked_inputs(const py::handle& neighbours, const py::handle& bits,
                      const py::handle& present, const py::handle& scores, int64_t n_models,
                      const py::handle& prior, const py::object& k, double prior_weight,
                      const py::handle& weights);

// Models by ascending preference number; refuses what is not a permutation.
std::vector<int64_t> order_of(const View<const int32_t, 1>& preference, int64_t models);

// Models that may be chosen: all of them where `allowed` is None.
struct Allowed {
    View<const bool, 1> view;
    int64_t count;
};

Allowed checked_allowed(const py::object& allowed, int64_t models, int64_t fallback_model);

// The arrays of a decision, the caller's or new ones.
struct ChosenArrays {
    std::array<py::object, 5> arrays;
    Chosen chosen;
    std::vector<Extent> extents;
};

ChosenArrays chosen_arrays(const py::object& out, int64_t queries);

// Reports the value that a computation refused, if it did.
void refuse_fault(const Fault& fault, const Inputs& in, const float* similarities);

}  // namespace benchrouter
