// Rows to 8 bits and back, around products of 8-bit integers: dynamic quantization.
#pragma once

#include <cstdint>

#include "embeddings/attention.hpp"

namespace benchrouter {

// Each row by its own largest value: row = scale * (quantized - 128), so that what becomes of a
// row depends on no other. A row that is not finite gets the scale NaN.
struct QuantizeTask {
    const void* values;  // (rows, columns), of type `type`
    TokenType type;
    int64_t rows, columns;
    uint8_t* quantized;  // (rows, columns), in [1, 255]
    float* scales;       // (rows,)
};

// values = act(scale of the row * values + bias of the column) + residual, in place.
struct DequantizeTask {
    void* values;  // (rows, columns), of type `type`
    TokenType type;
    int64_t rows, columns;
    const float* scales;   // (rows,)
    const float* bias;     // (columns,)
    const void* residual;  // (rows, columns), of type `type`, or null
    bool gelu;             // act is GELU by the error function, else nothing
};

}  // namespace benchrouter
