// Attention of one head of one prompt, for one instruction set: see floats.hpp.
//
// Keys are transposed and values widened once; then blocks of kQueryBlock queries hold their scores
// with all keys in cache, and every sum in registers.

#pragma once

#include "embeddings/attention.hpp"
#include "embeddings/floats.hpp"

namespace benchrouter {
namespace BR_LEVEL {
namespace {

typedef float Four __attribute__((vector_size(16)));
typedef int32_t Places __attribute__((vector_size(16)));

inline Four four(const float* from) {
    Four vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

// The 4 x 4 values at `from`, rows `stride` apart, as columns at `to`, rows `padded` apart.
inline void transpose(const float* from, int64_t stride, float* to, int64_t padded) {
    const Four a = four(from), b = four(from + stride);
    const Four c = four(from + 2 * stride), d = four(from + 3 * stride);
    const Four ab_low = __builtin_shuffle(a, b, Places{0, 4, 1, 5});
    const Four ab_high = __builtin_shuffle(a, b, Places{2, 6, 3, 7});
    const Four cd_low = __builtin_shuffle(c, d, Places{0, 4, 1, 5});
    const Four cd_high = __builtin_shuffle(c, d, Places{2, 6, 3, 7});
    const Four rows[4] = {__builtin_shuffle(ab_low, cd_low, Places{0, 1, 4, 5}),
                          __builtin_shuffle(ab_low, cd_low, Places{2, 3, 6, 7}),
                          __builtin_shuffle(ab_high, cd_high, Places{0, 1, 4, 5}),
                          __builtin_shuffle(ab_high, cd_high, Places{2, 3, 6, 7})};
    for (int r = 0; r < 4; ++r) memcpy(to + r * padded, &rows[r], sizeof(Four));
}

// Keys (length, dim), rows `stride` apart, to (wide, padded), filled up with 0.
template <class T>
void transpose_keys(const T* keys, int64_t stride, int64_t dim, int64_t length, int64_t wide,
                    int64_t padded, const AttentionScratch& at) {
    for (int64_t j = 0; j < padded; j += 4) {
        for (int64_t i = 0; i < 4; ++i) {
            const bool known = j + i < length;
            widen(keys + (known ? j + i : 0) * stride, known ? dim : 0, wide,
                  at.four_keys + i * wide);
        }
        for (int64_t d = 0; d < wide; d += 4)
            transpose(at.four_keys + d, wide, at.keys + d * padded + j, padded);
    }
}

// Products of `rows` queries with `vectors` times kWidth keys from `j` on.
template <int rows, int vectors>
inline void products(const AttentionScratch& at, int64_t dim, int64_t padded, int64_t j) {
    Floats sum[rows][vectors] = {};
    for (int64_t d = 0; d < dim; ++d) {
        Floats key[vectors];
        for (int v = 0; v < vectors; ++v) key[v] = load(at.keys + d * padded + j + v * kWidth);
        for (int q = 0; q < rows; ++q) {
            const Floats query = Floats{} + at.queries[q * dim + d];
            for (int v = 0; v < vectors; ++v) sum[q][v] += query * key[v];
        }
    }
    for (int q = 0; q < rows; ++q) {
        for (int v = 0; v < vectors; ++v) store(at.scores + q * padded + j + v * kWidth, sum[q][v]);
    }
}

// Scores of `rows` queries, exponentiated against each row's largest; returns their sums. Columns
// past `length` become 0, nearly.
template <int rows>
inline void exponentiate(const AttentionScratch& at, int64_t length, int64_t padded,
                         const float* bias, int64_t bias_stride, float* sums) {
    for (int q = 0; q < rows; ++q) {
        float* const scores = at.scores + q * padded;
        if (bias != nullptr) {
            const float* const row = bias + q * bias_stride;
            int64_t j = 0;
            for (; j + kWidth <= length; j += kWidth)
                store(scores + j, load(scores + j) + load(row + j));
            for (; j < length; ++j) scores[j] += row[j];
        }
        for (int64_t j = length; j < padded; ++j) scores[j] = -3.0e38f;
        Floats most = load(scores);
        for (int64_t j = kWidth; j < padded; j += kWidth) most = larger(most, load(scores + j));
        float largest = most[0];
        for (int v = 1; v < kWidth; ++v) largest = most[v] > largest ? most[v] : largest;
        Floats total = {};
        for (int64_t j = 0; j < padded; j += kWidth) {
            const Floats weight = exponential(load(scores + j) - largest);
            store(scores + j, weight);
            total += weight;
        }
        float sum = 0.0f;
        for (int v = 0; v < kWidth; ++v) sum += total[v];
        sums[q] = sum;
    }
}

template <int rows, int vectors, class T>
inline void mix(const AttentionScratch& at, int64_t dim, int64_t wide, int64_t first,
                int64_t length, int64_t padded, const float* sums, T* out, int64_t stride) {
    Floats sum[rows][vectors] = {};
    for (int64_t j = 0; j < length; ++j) {
        Floats value[vectors];
        for (int v = 0; v < vectors; ++v)
            value[v] = load(at.values + j * wide + first + v * kWidth);
        for (int q = 0; q < rows; ++q) {
            const Floats weight = Floats{} + at.scores[q * padded + j];
            for (int v = 0; v < vectors; ++v) sum[q][v] += weight * value[v];
        }
    }
    for (int q = 0; q < rows; ++q) {
        const float scale = 1.0f / sums[q];
        for (int v = 0; v < vectors; ++v) {
            const Floats found = sum[q][v] * scale;
            const int64_t start = first + v * kWidth;
            write_up_to(found, dim - start, out + q * stride + start);
        }
    }
}

// Row of the bias that belongs to a query, or null.
inline const float* bias_of(const AttentionTask& task, int64_t head, int64_t query) {
    if (task.bias == nullptr) return nullptr;
    return task.bias + (head * task.bias_length + query) * task.bias_length;
}

template <int rows, class T>
void block(const AttentionTask& task, const T* tokens, T* out, int64_t query, int64_t length,
           int64_t head, const AttentionScratch& at) {
    const int64_t dim = task.head_dim, wide = padded_to(dim, kGroup);
    const int64_t padded = padded_to(length, kGroup), stride = task.heads * dim;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
    for (int q = 0; q < rows; ++q) {
        for (int64_t d = 0; d < dim; ++d)
            at.queries[q * dim + d] = read(tokens + (query + q) * 3 * stride + d) * scale;
    }
    in_pieces<kVectors>(padded, kWidth, [&](auto vectors, int64_t j) {
        products<rows, decltype(vectors)::value>(at, dim, padded, j);
    });
    float sums[rows];
    exponentiate<rows>(at, length, padded, bias_of(task, head, query), task.bias_length, sums);
    T* const to = out + query * stride;
    in_pieces<kVectors>(wide, kWidth, [&](auto vectors, int64_t first) {
        mix<rows, decltype(vectors)::value>(at, dim, wide, first, length, padded, sums, to, stride);
    });
}

template <class T>
void head_of(const AttentionTask& task, int64_t first_token, int64_t length, int64_t head,
             const AttentionScratch& at) {
    const int64_t dim = task.head_dim, wide = padded_to(dim, kGroup);
    const int64_t padded = padded_to(length, kGroup), stride = task.heads * dim;
    const T* const tokens =
        static_cast<const T*>(task.query_key_value) + first_token * 3 * stride + head * dim;
    T* const out = static_cast<T*>(task.attended) + first_token * stride + head * dim;
    transpose_keys(tokens + stride, 3 * stride, dim, length, wide, padded, at);
    for (int64_t j = 0; j < length; ++j)
        widen(tokens + (j * 3 + 2) * stride, dim, wide, at.values + j * wide);
    in_pieces<kQueryBlock>(length, 1, [&](auto rows, int64_t query) {
        block<decltype(rows)::value>(task, tokens, out, query, length, head, at);
    });
}

#if defined(__AVX512BF16__)
#include "embeddings/attention_pairs.hpp"
#endif

void attention_head(const AttentionTask& task, int64_t first_token, int64_t length, int64_t head,
                    const AttentionScratch& scratch) {
#if defined(__AVX512BF16__)
    if (task.type == TokenType::bfloat16 && task.head_dim % 2 == 0)
        return pair_head_of(task, first_token, length, head, scratch);
#endif
    if (task.type == TokenType::float32) {
        head_of<float>(task, first_token, length, head, scratch);
    } else {
        head_of<uint16_t>(task, first_token, length, head, scratch);
    }
}

}  // namespace
}  // namespace BR_LEVEL
}  // namespace benchrouter
