// Rows to 8 bits and back, for one instruction set: see floats.hpp.
#pragma once

#include "embeddings/floats.hpp"
#include "embeddings/quantize.hpp"

namespace benchrouter {
namespace BR_LEVEL {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(kWidth)));

// Up to a vector of values; what is past `room` is 0.
template <class T>
inline Floats read_up_to(const T* from, int64_t room) {
    if (room >= kWidth) return read_vector(from);
    T all[kWidth] = {};
    memcpy(all, from, static_cast<size_t>(room) * sizeof(T));
    return read_vector(all);
}

inline Words larger(Words a, Words b) {
    return a > b ? a : b;
}

template <class T>
void quantize_row(const T* values, int64_t columns, uint8_t* quantized, float* scale) {
    // Bits of magnitudes are ordered as the magnitudes are, with what is not finite on top.
    Words most = {};
    for (int64_t j = 0; j < columns; j += kWidth) {
        const Floats x = read_up_to(values + j, columns - j);
        most = larger(most, reinterpret_cast<Words>(x) & 0x7FFFFFFF);
    }
    uint32_t bits = 0;
    for (int v = 0; v < kWidth; ++v) bits = most[v] > bits ? most[v] : bits;
    const bool is_finite = bits < 0x7F800000;
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    *scale = is_finite ? largest / 127.0f : __builtin_nanf("");
    if (!is_finite || largest < 1e-35f) {
        memset(quantized, 128, static_cast<size_t>(columns));
        return;
    }
    const float inverse = 127.0f / largest;
    // Added to a number it leaves the nearest whole one, plus 128, in the low bits of the sum.
    const Floats magic = Floats{} + 12583040.0f;
    for (int64_t j = 0; j < columns; j += kWidth) {
        const Floats x = read_up_to(values + j, columns - j);
        const Floats shifted = x * inverse + magic;
        const Bytes bytes = __builtin_convertvector(reinterpret_cast<Words>(shifted) & 0xFF, Bytes);
        const int64_t room = columns - j < kWidth ? columns - j : kWidth;
        memcpy(quantized + j, &bytes, static_cast<size_t>(room));
    }
}

// To [-most, most]; NaN stays.
inline Floats within(Floats x, float most) {
    const Floats above = larger(Floats{} - most, x);
    const Floats limit = Floats{} + most;
    return limit < above ? limit : above;
}

// GELU by the error function, to 6e-5: erf(x / sqrt 2) is x times a polynomial in x^2 up to 4.3
// (fitted for the least greatest error), and 1 beyond; far less than 8 bits resolve.
inline Floats gelu(Floats x) {
    const Floats inside = within(x, 4.3f);
    const Floats square = inside * inside;
    Floats p = Floats{} + 1.02953042e-10f;
    p = p * square - 1.00529336e-8f;
    p = p * square + 4.33269179e-7f;
    p = p * square - 1.09752082e-5f;
    p = p * square + 1.84392731e-4f;
    p = p * square - 2.20502843e-3f;
    p = p * square + 1.96005944e-2f;
    p = p * square - 1.32653058e-1f;
    p = p * square + 7.97794e-1f;  // fitted: 7.97792912e-1; so that it is no less than 1 at 4.3
    return 0.5f * x * (1.0f + within(p * inside, 1.0f));
}

template <bool with_gelu, bool with_residual, class T>
void dequantize(const DequantizeTask& task) {
    for (int64_t i = 0; i < task.rows; ++i) {
        T* const row = static_cast<T*>(task.values) + i * task.columns;
        const T* const residual =
            with_residual ? static_cast<const T*>(task.residual) + i * task.columns : nullptr;
        for (int64_t j = 0; j < task.columns; j += kWidth) {
            const int64_t room = task.columns - j;
            Floats x = read_up_to(row + j, room) * task.scales[i] + read_up_to(task.bias + j, room);
            if (with_gelu) x = gelu(x);
            if (with_residual) x += read_up_to(residual + j, room);
            write_up_to(x, room, row + j);
        }
    }
}

template <class T>
void dequantize_as(const DequantizeTask& task) {
    if (task.gelu) {
        task.residual != nullptr ? dequantize<true, true, T>(task)
                                 : dequantize<true, false, T>(task);
    } else {
        task.residual != nullptr ? dequantize<false, true, T>(task)
                                 : dequantize<false, false, T>(task);
    }
}

void quantize_rows(const QuantizeTask& task) {
    for (int64_t i = 0; i < task.rows; ++i) {
        const int64_t at = i * task.columns;
        if (task.type == TokenType::float32) {
            quantize_row(static_cast<const float*>(task.values) + at, task.columns,
                         task.quantized + at, task.scales + i);
        } else {
            quantize_row(static_cast<const uint16_t*>(task.values) + at, task.columns,
                         task.quantized + at, task.scales + i);
        }
    }
}

void dequantize_rows(const DequantizeTask& task) {
    task.type == TokenType::float32 ? dequantize_as<float>(task) : dequantize_as<uint16_t>(task);
}

}  // namespace
}  // namespace BR_LEVEL
}  // namespace benchrouter
