// What a CUDA device can do with neighbours: the twin of vote_cpu.hpp, whose structs hold pointers
// to device memory here. Nothing is allocated, copied or waited for.
#pragma once

#include <cstdint>

#include "votes/vote_cpu.hpp"

namespace benchrouter {

// Kinds of values that a device refuses, by number.
constexpr const char* kDeviceFaults[] = {"id", "weight", "similarity", "score"};
constexpr int64_t kDeviceFaultKinds = 4;

// Where kernels are launched.
struct Launch {
    int device;
    void* stream;  // a cudaStream_t of that device
    // One value in device memory, beforehand above every place: afterwards the least place of a
    // refused value, (row * kDeviceFaultKinds + kind) * columns + column in neighbours; what was
    // written is then unspecified. The place of a score is that of the neighbour that has it.
    int64_t* fault;
};

// All throw std::runtime_error, with what CUDA says, if the launch fails; without queries or
// models there is none. Decision::order is not used.
void votes_on_device(const Ballots&, float* votes, uint16_t* support, const Launch&);

void decide_on_device(const Ballots&, const Decision&, const Chosen&, const Launch&);

// As expect() of vote_cpu.hpp. Expectation::dataset is trusted to hold numbers of datasets.
void expect_on_device(const Ballots&, const Decision&, const Expectation&, const Expected&,
                      const Launch&);

}  // namespace benchrouter
