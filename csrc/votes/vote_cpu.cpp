// Votes, decisions and task scores: cuts the queries into chunks and gives each thread its memory.
#include "votes/vote_cpu.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "common/threads.hpp"
#include "votes/levels.hpp"

namespace benchrouter {
namespace {

constexpr int64_t kChunkQueries = 4096;
// Below this many looked-up words or scores a call takes less time than a thread takes to start.
constexpr int64_t kInlineWork = 1 << 16;
// Outputs larger than this leave the cache before anyone reads them.
constexpr int64_t kStreamBytes = 8 << 20;

// Working memory of every thread. Arrays begin at cache lines: no register's worth of them lies
// over two lines, and no two threads write to one.
class Workspace {
public:
    Workspace(const Ballots& in, int threads, const Decision* decision = nullptr,
              const Expectation* expectation = nullptr) {
        const int64_t models = padded_models(in.models);
        const int64_t block = block_queries(in.models) * in.models + 2 * kModelGroup;
        float* const padded_prior = take<float>(models);
        std::copy(in.prior, in.prior + in.models, padded_prior);
        int32_t* const padded_preference = take<int32_t>(models);
        std::fill(padded_preference, padded_preference + models,
                  std::numeric_limits<int32_t>::max());
        if (decision) {
            const int32_t* const preference = decision->preference;
            std::copy(preference, preference + in.models, padded_preference);
        }
        for (int t = 0; t < threads; ++t) {
            Scratch s{};
            s.prior = padded_prior;
            s.preference = padded_preference;
            for (double** array :
                 {&s.sum, &s.total, &s.value, &s.support, &s.s1, &s.s2, &s.supported}) {
                *array = take<double>(models);
            }
            s.score = take<float>(models);
            if (expectation) {
                s.queries = take<double>(kMostShare * expectation->dim);
                s.views = take<double>(kExpectQueries * 2 * expectation->width);
                s.of_datasets = take<double>(2 * expectation->width);
                s.counts = take<int32_t>(expectation->datasets);
            }
            s.block_votes = reinterpret_cast<char*>(take<float>(block));
            s.block_support = reinterpret_cast<char*>(take<uint16_t>(block));
            scratch_.push_back(s);
        }
    }
    Scratch& of(int thread) { return scratch_[static_cast<size_t>(thread)]; }

private:
    static constexpr std::align_val_t kLine{64};
    struct Release {
        void operator()(void* memory) const { ::operator delete(memory, kLine); }
    };

    // An array of zeros.
    template <class T>
    T* take(int64_t count) {
        const size_t bytes = static_cast<size_t>(count) * sizeof(T);
        memory_.emplace_back(::operator new(bytes, kLine));
        return static_cast<T*>(std::memset(memory_.back().get(), 0, bytes));
    }

    std::vector<std::unique_ptr<void, Release>> memory_;
    std::vector<Scratch> scratch_;
};

int64_t work_per_query(const Ballots& in) {
    return (in.k + 1) * (in.bits ? in.words : in.models) + in.models;
}

// Calls body(begin, end, scratch) for chunks of the queries; all of them are one chunk where there
// is too little work to share.
template <class Body>
Fault for_queries(const Ballots& in, int64_t work_of_one, Run run, const Decision* decision,
                  const Expectation* expectation, const Body& body) {
    const int64_t step = in.queries * work_of_one < kInlineWork
                             ? std::max<int64_t>(in.queries, 1)
                             : std::min(kChunkQueries, (in.queries + 7) / 8);
    const int64_t chunks = (in.queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    Workspace workspace(in, threads, decision, expectation);
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) {
        const int64_t begin = chunk * step;
        return body(begin, std::min(begin + step, in.queries), workspace.of(thread));
    });
}

}  // namespace

Fault votes(const Ballots& in, float* votes, uint16_t* support, Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    const bool stream = in.queries * in.models * 6 > kStreamBytes;
    return for_queries(in, work_per_query(in), run, nullptr, nullptr,
                       [&](int64_t begin, int64_t end, Scratch& scratch) {
                           return kernels.votes(in, begin, end, votes, support, stream, scratch);
                       });
}

Fault decide(const Ballots& in, const Decision& decision, const Chosen& chosen, Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    return for_queries(in, work_per_query(in), run, &decision, nullptr,
                       [&](int64_t begin, int64_t end, Scratch& scratch) {
                           return kernels.decide(in, decision, begin, end, chosen, scratch);
                       });
}

Fault expect(const Ballots& in, const Decision& decision, const Expectation& e, const Expected& out,
             Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    return for_queries(in, work_per_query(in) + 2 * e.dim * e.width, run, &decision, &e,
                       [&](int64_t begin, int64_t end, Scratch& scratch) {
                           return kernels.expect(in, decision, e, begin, end, out, scratch);
                       });
}

Fault task_scores(const Ballots& in, const int64_t* offsets, int64_t tasks, double threshold,
                  const TaskScores& out, Run run) {
    // The first block of a task is summed in its row of `out`, the others beside.
    struct Block {
        int64_t task, begin, end;
        int64_t beside;  // row of its sums, -1 = in `out`
    };
    const int64_t models = in.models;
    std::vector<Block> blocks;
    int64_t n_beside = 0;
    for (int64_t i = 0; i < tasks; ++i) {
        for (int64_t from = offsets[i]; from < offsets[i + 1]; from += kTaskBlock) {
            const int64_t beside = from == offsets[i] ? -1 : n_beside++;
            blocks.push_back({i, from, std::min(from + kTaskBlock, offsets[i + 1]), beside});
        }
    }
    std::vector<double> s1(static_cast<size_t>(n_beside * models)), s2(s1.size());
    std::vector<int64_t> support(s1.size());

    const Kernels& kernels = kernels_of(run.simd);
    const int64_t n_blocks = static_cast<int64_t>(blocks.size());
    const bool small = in.queries * work_per_query(in) < kInlineWork;
    const int threads = threads_for(small ? 1 : run.threads, n_blocks);
    Workspace workspace(in, threads);
    const Fault fault = for_chunks(n_blocks, threads, [&](int64_t number, int thread) {
        const Block& block = blocks[static_cast<size_t>(number)];
        TaskScores sums{s1.data(), s2.data(), support.data()};
        if (block.beside < 0) sums = out;
        const int64_t at = (block.beside < 0 ? block.task : block.beside) * models;
        sums = {sums.s1 + at, sums.s2 + at, sums.support + at};
        return kernels.task(in, threshold, block.begin, block.end, sums, workspace.of(thread));
    });
    if (fault) return fault;

    for (const Block& block : blocks) {
        for (int64_t m = 0; m < models && block.beside >= 0; ++m) {
            const int64_t to = block.task * models + m, from = block.beside * models + m;
            out.s1[to] = add(out.s1[to], s1[from]);
            out.s2[to] += s2[from];
            out.support[to] += support[from];
        }
    }
    for (int64_t i = 0; i < tasks; ++i) {
        const int64_t queries = offsets[i + 1] - offsets[i];
        for (int64_t at = i * models; at < (i + 1) * models; ++at) {
            if (queries == 0) {
                out.s1[at] = out.s2[at] = std::numeric_limits<double>::quiet_NaN();
                out.support[at] = 0;
            } else {
                out.s1[at] /= static_cast<double>(queries);
                out.s2[at] /= static_cast<double>(queries);
            }
        }
    }
    return {};
}

void stream_copy(const uint8_t* source, uint8_t* target, int64_t bytes, Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    // The first piece ends where a cache line does, so that the others begin there.
    const int64_t head = std::min<int64_t>(-reinterpret_cast<intptr_t>(target) & 63, bytes);
    std::copy(source, source + head, target);
    constexpr int64_t step = 1 << 20;
    const int64_t chunks = (bytes - head + step - 1) / step;
    for_chunks(chunks, threads_for(run.threads, chunks), [&](int64_t chunk, int) -> Fault {
        const int64_t from = head + chunk * step;
        kernels.copy(reinterpret_cast<char*>(target + from),
                     reinterpret_cast<const char*>(source + from), std::min(step, bytes - from));
        return {};
    });
}

}  // namespace benchrouter
