// Attention in bfloat16 by AVX-512's dot products of pairs, summed in float32: what follows
// attention_kernel.hpp for the one instruction set that has them. Twice as many products in a
// register as in float32, and nothing has to be widened; weights are rounded to bfloat16 once.

typedef __m512bh Pairs;

inline Pairs pairs(const void* from) {
    Pairs vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

inline Pairs same_pair(const void* from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return reinterpret_cast<Pairs>(_mm512_set1_epi32(word));
}

// Products of `rows` queries with `vectors` times 16 keys from `j` on: pairs of dimensions.
template <int rows, int vectors>
inline void pair_products(const AttentionScratch& at, const uint16_t* queries, int64_t stride,
                          int64_t dim, float scale, int64_t padded, int64_t j) {
    __m512 sum[rows][vectors] = {};
    for (int64_t d = 0; d < dim / 2; ++d) {
        Pairs key[vectors];
        for (int v = 0; v < vectors; ++v) key[v] = pairs(at.keys + d * padded + j + v * kWidth);
        for (int q = 0; q < rows; ++q) {
            const Pairs query = same_pair(queries + q * stride + 2 * d);
            for (int v = 0; v < vectors; ++v)
                sum[q][v] = _mm512_dpbf16_ps(sum[q][v], query, key[v]);
        }
    }
    for (int q = 0; q < rows; ++q) {
        for (int v = 0; v < vectors; ++v) {
            const Floats found = reinterpret_cast<Floats>(sum[q][v]) * scale;
            store(at.scores + q * padded + j + v * kWidth, found);
        }
    }
}

template <int rows, int vectors>
inline void pair_mix(const AttentionScratch& at, int64_t dim, int64_t wide, int64_t first,
                     int64_t length, int64_t padded, const float* sums, uint16_t* out,
                     int64_t stride) {
    __m512 sum[rows][vectors] = {};
    for (int64_t j = 0; j < (length + 1) / 2; ++j) {
        Pairs value[vectors];
        for (int v = 0; v < vectors; ++v)
            value[v] = pairs(at.values + j * wide + first + v * kWidth);
        for (int q = 0; q < rows; ++q) {
            const Pairs weight = same_pair(at.scores + q * padded + j);
            for (int v = 0; v < vectors; ++v)
                sum[q][v] = _mm512_dpbf16_ps(sum[q][v], weight, value[v]);
        }
    }
    for (int q = 0; q < rows; ++q) {
        const float scale = 1.0f / sums[q];
        for (int v = 0; v < vectors; ++v) {
            const int64_t start = first + v * kWidth;
            const Floats found = reinterpret_cast<Floats>(sum[q][v]) * scale;
            write_up_to(found, dim - start, out + q * stride + start);
        }
    }
}

template <int rows>
void pair_block(const AttentionTask& task, const uint16_t* tokens, uint16_t* out, int64_t query,
                int64_t length, int64_t head, const AttentionScratch& at) {
    const int64_t dim = task.head_dim, wide = padded_to(dim, kGroup);
    const int64_t padded = padded_to(length, kGroup), stride = task.heads * dim;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
    const uint16_t* const queries = tokens + query * 3 * stride;
    in_pieces<kVectors>(padded, kWidth, [&](auto vectors, int64_t j) {
        constexpr int n = decltype(vectors)::value;
        pair_products<rows, n>(at, queries, 3 * stride, dim, scale, padded, j);
    });
    float sums[rows];
    exponentiate<rows>(at, length, padded, bias_of(task, head, query), task.bias_length, sums);
    for (int q = 0; q < rows; ++q) {  // in place: the float32 weights are read before their half
        float* const scores = at.scores + q * padded;
        for (int64_t j = 0; j < padded; j += kWidth) {
            const __m256bh weights = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(load(scores + j)));
            memcpy(reinterpret_cast<uint16_t*>(scores) + j, &weights, sizeof weights);
        }
    }
    uint16_t* const to = out + query * stride;
    in_pieces<kVectors>(wide, kWidth, [&](auto vectors, int64_t first) {
        constexpr int n = decltype(vectors)::value;
        pair_mix<rows, n>(at, dim, wide, first, length, padded, sums, to, stride);
    });
}

// `dim` is even: keys are transposed in pairs of dimensions, (dim / 2, padded), and values stand in
// pairs of keys, (length / 2, wide).
void pair_head_of(const AttentionTask& task, int64_t first_token, int64_t length, int64_t head,
                  const AttentionScratch& at) {
    const int64_t dim = task.head_dim, wide = padded_to(dim, kGroup);
    const int64_t padded = padded_to(length, kGroup), stride = task.heads * dim;
    const uint16_t* const tokens =
        static_cast<const uint16_t*>(task.query_key_value) + first_token * 3 * stride + head * dim;
    uint16_t* const out = static_cast<uint16_t*>(task.attended) + first_token * stride + head * dim;
    for (int64_t j = 0; j < padded; j += 4) {
        for (int64_t i = 0; i < 4; ++i) {
            float* const to = at.four_keys + i * wide;
            memset(to, 0, static_cast<size_t>(wide) * sizeof(float));
            if (j + i < length) {
                memcpy(to, tokens + ((j + i) * 3 + 1) * stride,
                       static_cast<size_t>(dim) * sizeof(uint16_t));
            }
        }
        for (int64_t d = 0; d < dim / 2; d += 4)
            transpose(at.four_keys + d, wide, at.keys + d * padded + j, padded);
    }
    for (int64_t j = 0; j < length; j += 2) {
        const uint16_t* const one = tokens + (j * 3 + 2) * stride;
        uint16_t* const to = reinterpret_cast<uint16_t*>(at.values + j / 2 * wide);
        for (int64_t d = 0; d < wide; ++d) {
            to[2 * d] = d < dim ? one[d] : 0;
            to[2 * d + 1] = d < dim && j + 1 < length ? one[3 * stride + d] : 0;
        }
    }
    in_pieces<kQueryBlock>(length, 1, [&](auto rows, int64_t query) {
        pair_block<decltype(rows)::value>(task, tokens, out, query, length, head, at);
    });
}
