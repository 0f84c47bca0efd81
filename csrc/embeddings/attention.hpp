// Softmax attention within each prompt of a batch whose tokens stand one after the other.
#pragma once

#include <cstdint>

#include "common/run.hpp"

namespace benchrouter {

enum class TokenType { float32, bfloat16 };

struct AttentionTask {
    const void* query_key_value;  // (tokens, 3, heads, head_dim), of type `type`
    void* attended;               // (tokens, heads, head_dim), of type `type`
    TokenType type;
    const int64_t* runs;  // (n_runs, 2): prompts, tokens of each
    int64_t n_runs;
    int64_t heads, head_dim;
    const float* bias;    // (heads, bias_length, bias_length), added to the scores, or null
    int64_t bias_length;  // at least the longest prompt
};

// Working memory of one head of one prompt, in float32: see attention_kernel.hpp.
struct AttentionScratch {
    float* queries;    // (kQueryBlock, head_dim)
    float* four_keys;  // (4, padded head_dim)
    float* keys;       // (padded head_dim, padded length)
    float* values;     // (length, padded head_dim)
    float* scores;     // (kQueryBlock, padded length)
};

constexpr int64_t kQueryBlock = 6;
constexpr int64_t kGroup = 16;  // lengths and head_dim are padded to it

constexpr int64_t padded_to(int64_t length, int64_t group) {
    return (length + group - 1) / group * group;
}

// All arithmetic is float32. Runs in the calling thread: batches are what is shared between cores.
void attention(const AttentionTask& task, Simd simd);

}  // namespace benchrouter
