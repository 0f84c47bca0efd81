// The arguments that several functions of benchrouter._core share, on the CPU and on a device.
#pragma once

#include <utility>
#include <vector>

#include "bindings/given.hpp"
#include "bindings/learnt.hpp"
#include "votes/vote_cpu.hpp"

namespace benchrouter {

// What is voted on. Values in device memory are checked by the kernels and after them.
Ballots checked_ballots(Given& given, double prior_weight, bool weighted = true);

// A decision, and where it is written; `order` keeps what it points to. `home`: the best on average
// of the rule `auto`, or -1.
std::pair<Decision, Chosen> checked_decision(Given& given, const Ballots& in,
                                             const std::string& rule, double threshold,
                                             int64_t home, std::vector<int64_t>& order);

// The votes, and their support.
std::pair<float*, uint16_t*> vote_outputs(Given& given, const Ballots& in);

// What the rule `auto` learnt and is asked, and where its answers are written.
struct ExpectTask {
    Ballots ballots;
    Decision decision;
    Expectation expectation;
    Expected expected;
    std::vector<int64_t> order;
};

ExpectTask expect_task(Given& given, const LearntArrays& learnt, const Expectation& expectation);

// Reports the value that a computation on the CPU refused, if it did.
void refuse_fault(const Fault& fault, const Ballots& in, const float* similarities);

}  // namespace benchrouter
