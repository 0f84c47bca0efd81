// Vectors of float32, read from and written to float32 or bfloat16, for the kernels of the encoder.
// Compiled once for each instruction set with encoder_kernels.cpp. As in votes/kernels.cpp, nothing
// of the standard library is instantiated here. Unlike votes, sums may be fused and differ
// in the last bit between levels: CMakeLists.txt allows it for these files.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace benchrouter {
namespace BR_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
constexpr int kVectors = 4;  // whose sums, kQueryBlock times, fit into the registers
#elif defined(__AVX2__)
constexpr int kWidth = 8;
constexpr int kVectors = 2;
#else
constexpr int kWidth = 4;
constexpr int kVectors = 2;
#endif
typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));

inline Floats load(const float* from) {
    Floats vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

inline void store(float* to, Floats vector) {
    memcpy(to, &vector, sizeof vector);
}

inline Floats larger(Floats a, Floats b) {
    return a > b ? a : b;
}

// e^x for x <= 0, to 2 ulp; below -87 as at -87, about 1e-38.
inline Floats exponential(Floats x) {
    x = larger(Floats{} - 87.0f, x);  // in this order NaN stays
    // x = n ln 2 + r: the magic number rounds n to a whole one in its low bits
    const Floats magic = Floats{} + 12582912.0f;
    const Floats shifted = x * 1.44269504f + magic;
    const Floats n = shifted - magic;
    const Floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    // Taylor's series up to r^7, |r| <= 0.347
    Floats p = Floats{} + 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Ints bits = reinterpret_cast<Ints>(shifted) << 23;
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + bits);
}

inline float read(const float* from) {
    return *from;
}

inline float read(const uint16_t* from) {
    const uint32_t bits = static_cast<uint32_t>(*from) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline Floats read_vector(const float* from) {
    return load(from);
}

inline Floats read_vector(const uint16_t* from) {
    Halves halves;
    memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

inline void write_vector(Floats values, float* to) {
    store(to, values);
}

// To the nearest bfloat16, ties to even; NaN stays one.
inline void write_vector(Floats values, uint16_t* to) {
#if defined(__AVX512BF16__)
    const __m256bh halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(values));
#else
    const Words bits = reinterpret_cast<Words>(values);
    const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const Words kept = reinterpret_cast<Words>(values == values);
    const Halves halves = __builtin_convertvector((rounded & kept) | (0x7FC0 & ~kept), Halves);
#endif
    memcpy(to, &halves, sizeof halves);
}

// As many values of a vector as there is room for.
template <class T>
inline void write_up_to(Floats values, int64_t room, T* to) {
    if (room >= kWidth) {
        write_vector(values, to);
    } else if (room > 0) {
        T all[kWidth];
        write_vector(values, all);
        memcpy(to, all, static_cast<size_t>(room) * sizeof(T));
    }
}

// `count` values widened to `wide`, a multiple of kWidth; what is past `count` becomes 0.
template <class T>
inline void widen(const T* from, int64_t count, int64_t wide, float* to) {
    int64_t d = 0;
    for (; d + kWidth <= count; d += kWidth) store(to + d, read_vector(from + d));
    for (; d < wide; ++d) to[d] = d < count ? read(from + d) : 0.0f;
}

// The number of vectors, or of rows, that a loop takes at a time: known when it is compiled.
template <int n>
struct Times {
    static constexpr int value = n;
};

// Calls body(Times<n>, start) for pieces of `most`, then 2, then 1 units that make up `count`.
template <int most, class Body>
inline void in_pieces(int64_t count, int64_t unit, const Body& body) {
    int64_t at = 0;
    for (; at + most * unit <= count; at += most * unit) body(Times<most>{}, at);
    for (; at + 2 * unit <= count; at += 2 * unit) body(Times<2>{}, at);
    for (; at < count; at += unit) body(Times<1>{}, at);
}

}  // namespace
}  // namespace BR_LEVEL
}  // namespace benchrouter
