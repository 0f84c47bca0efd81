// The loops over codes, compiled once for each instruction set: CMakeLists.txt defines BR_LEVEL. As
// in votes/kernels.cpp, nothing of the standard library is instantiated here. Products of codes are
// whole numbers, the same on every level.

#include <stdint.h>
#include <string.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#include "neighbours/search.hpp"
#include "neighbours/search_levels.hpp"

namespace benchrouter {
namespace BR_LEVEL {
namespace {

#if defined(__AVX512VNNI__)

constexpr int kLanes = 16;
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef float Floats __attribute__((vector_size(4 * kLanes)));
constexpr int kRegisters = kGroupRecords / kLanes;

// All loops but that over steps are unrolled, so that the sums stay in registers.
template <int count>
void compare_tile(const uint8_t* values, const float* scales, const float* errors, int64_t steps,
                  const CodedQueries& queries, float* similarities, uint64_t* passing) {
    Ints sums[count][kRegisters];
#pragma GCC unroll 8
    for (int q = 0; q < count; ++q) {
#pragma GCC unroll 8
        for (int r = 0; r < kRegisters; ++r) sums[q][r] = Ints{};
    }
    const int64_t row = kStepValues * steps;
    for (int64_t s = 0; s < steps; ++s) {
        __m512i records[kRegisters];
#pragma GCC unroll 8
        for (int r = 0; r < kRegisters; ++r) {
            records[r] = _mm512_loadu_si512(values + (s * kRegisters + r) * 64);
        }
#pragma GCC unroll 8
        for (int q = 0; q < count; ++q) {
            int32_t four;
            memcpy(&four, queries.codes + q * row + kStepValues * s, sizeof four);
            const __m512i query = _mm512_set1_epi32(four);
#pragma GCC unroll 8
            for (int r = 0; r < kRegisters; ++r) {
                sums[q][r] = reinterpret_cast<Ints>(
                    _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums[q][r]), records[r], query));
            }
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < count; ++q) {
        uint64_t bits = 0;
#pragma GCC unroll 8
        for (int r = 0; r < kRegisters; ++r) {
            const Ints sum = sums[q][r] - queries.offsets[q];
            Floats own, error;
            memcpy(&own, scales + r * kLanes, sizeof own);
            memcpy(&error, errors + r * kLanes, sizeof error);
            const Floats similarity =
                __builtin_convertvector(sum, Floats) * (own * queries.scales[q]);
            memcpy(similarities + q * kGroupRecords + r * kLanes, &similarity, sizeof similarity);
            const __m512 most = reinterpret_cast<__m512>(similarity + error);
            const __m512 floor = _mm512_set1_ps(queries.floors[q]);
            bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(most, floor, _CMP_GE_OQ))
                    << (r * kLanes);
        }
        passing[q] = bits;
    }
}

void compare(const uint8_t* values, const float* scales, const float* errors, int64_t steps,
             const CodedQueries& queries, int count, float* similarities, uint64_t* passing) {
    switch (count) {
        case 6:
            return compare_tile<6>(values, scales, errors, steps, queries, similarities, passing);
        case 5:
            return compare_tile<5>(values, scales, errors, steps, queries, similarities, passing);
        case 4:
            return compare_tile<4>(values, scales, errors, steps, queries, similarities, passing);
        case 3:
            return compare_tile<3>(values, scales, errors, steps, queries, similarities, passing);
        case 2:
            return compare_tile<2>(values, scales, errors, steps, queries, similarities, passing);
        default:
            return compare_tile<1>(values, scales, errors, steps, queries, similarities, passing);
    }
}

#else

void compare(const uint8_t* values, const float* scales, const float* errors, int64_t steps,
             const CodedQueries& queries, int count, float* similarities, uint64_t* passing) {
    for (int q = 0; q < count; ++q) {
        int32_t sums[kGroupRecords] = {};
        for (int64_t s = 0; s < steps; ++s) {
            const int8_t* const four = queries.codes + (q * steps + s) * kStepValues;
            const uint8_t* const group = values + s * kGroupRecords * kStepValues;
            for (int64_t r = 0; r < kGroupRecords; ++r) {
                for (int64_t v = 0; v < kStepValues; ++v) sums[r] += group[4 * r + v] * four[v];
            }
        }
        passing[q] = 0;
        for (int64_t r = 0; r < kGroupRecords; ++r) {
            const float sum = static_cast<float>(sums[r] - queries.offsets[q]);
            const float similarity = sum * (scales[r] * queries.scales[q]);
            similarities[q * kGroupRecords + r] = similarity;
            const uint64_t passes = similarity + errors[r] >= queries.floors[q];
            passing[q] |= passes << r;
        }
    }
}

#endif

}  // namespace

extern const SearchKernels search_kernels;
const SearchKernels search_kernels = {compare};

}  // namespace BR_LEVEL
}  // namespace benchrouter
