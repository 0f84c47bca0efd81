// How a call runs, and what it refuses.
#pragma once

#include <cstdint>

namespace benchrouter {

enum class Simd { scalar = 0, avx2 = 1, avx512 = 2 };

// The widest level that this machine runs.
Simd widest_simd();

// The first value, in row order, that a computation refused; what it wrote until then is
// unspecified.
enum class FaultKind { none, id, weight, similarity, score, place, query };
struct Fault {
    FaultKind kind = FaultKind::none;
    int64_t row = 0;
    int64_t column = 0;

    // Always inlined, as BR_HD says in votes/vote.hpp.
    __attribute__((always_inline)) explicit operator bool() const {
        return kind != FaultKind::none;
    }
};

struct Run {
    int threads;  // 0 = as many as the process may use
    Simd simd;
};

}  // namespace benchrouter
