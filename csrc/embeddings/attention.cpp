#include "embeddings/attention.hpp"

#include <algorithm>
#include <vector>

#include "embeddings/encoder_levels.hpp"

namespace benchrouter {

void attention(const AttentionTask& task, Simd simd) {
    const auto head_of = encoder_kernels(simd).attention_head;
    int64_t longest = 0;
    for (int64_t r = 0; r < task.n_runs; ++r) longest = std::max(longest, task.runs[2 * r + 1]);
    const int64_t padded = padded_to(longest, kGroup), wide = padded_to(task.head_dim, kGroup);
    const int64_t of_queries = kQueryBlock * task.head_dim, of_keys = wide * padded;
    const int64_t of_values = longest * wide, of_scores = kQueryBlock * padded;
    std::vector<float> memory(
        static_cast<size_t>(of_queries + 4 * wide + of_keys + of_values + of_scores));
    AttentionScratch scratch{};
    scratch.queries = memory.data();
    scratch.four_keys = scratch.queries + of_queries;
    scratch.keys = scratch.four_keys + 4 * wide;
    scratch.values = scratch.keys + of_keys;
    scratch.scores = scratch.values + of_values;
    int64_t token = 0;
    for (int64_t r = 0; r < task.n_runs; ++r) {
        const int64_t prompts = task.runs[2 * r], length = task.runs[2 * r + 1];
        for (int64_t p = 0; p < prompts; ++p, token += length) {
            for (int64_t head = 0; head < task.heads; ++head)
                head_of(task, token, length, head, scratch);
        }
    }
}

}  // namespace benchrouter
