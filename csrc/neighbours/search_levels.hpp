// The loops over codes, compiled once for each instruction set from search_kernel.cpp.
#pragma once

#include <cstdint>

#include "common/run.hpp"

namespace benchrouter {

constexpr int kTileQueries = 6;  // whose sums over a group of records fit into the registers

// A query in codes: query = scale * code + something.
struct CodedQueries {
    const int8_t* codes;     // (queries, 4 * steps)
    const float* scales;     // (queries,)
    const int32_t* offsets;  // (queries,) what the zero of the records' codes adds to a sum
    const float* floors;     // (queries,) a record passes if its similarity + error reaches this
};

struct SearchKernels {
    // Compares `count` <= kTileQueries queries with a group of records: `similarities` gets
    // kGroupRecords for each query, `passing` a bit for each of them.
    void (*compare)(const uint8_t* values, const float* scales, const float* errors, int64_t steps,
                    const CodedQueries&, int count, float* similarities, uint64_t* passing);
};

namespace scalar {
extern const SearchKernels search_kernels;
}
#if defined(BR_X86)
namespace avx512vnni {
extern const SearchKernels search_kernels;
}
#endif

inline bool has_vnni() {
#if defined(BR_X86)
    return widest_simd() == Simd::avx512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

inline const SearchKernels& search_kernels(Simd simd) {
#if defined(BR_X86)
    if (simd == Simd::avx512 && has_vnni()) return avx512vnni::search_kernels;
#endif
    (void)simd;
    return scalar::search_kernels;
}

}  // namespace benchrouter
