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
    Workspace(const Outcomes& outcomes, const Prior& prior, int threads,
              const int32_t* preference = nullptr, const Expectation* expectation = nullptr) {
        const int64_t models = padded_models(outcomes.models);
        const int64_t block = block_queries(outcomes.models) * outcomes.models + 2 * kModelGroup;
        float* const padded_prior = take<float>(models);
        std::copy(prior.mean, prior.mean + outcomes.models, padded_prior);
        int32_t* const padded_preference = take<int32_t>(models);
        std::fill(padded_preference, padded_preference + models,
                  std::numeric_limits<int32_t>::max());
        if (preference) std::copy(preference, preference + outcomes.models, padded_preference);
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

int64_t work_per_query(const Ballots& ballots, const Outcomes& outcomes) {
    return (ballots.k + 1) * (outcomes.bits ? outcomes.words : outcomes.models) + outcomes.models;
}

// Queries in one chunk: all of them where there is too little work to share.
int64_t chunk_queries(int64_t queries, int64_t work_of_one) {
    return queries * work_of_one < kInlineWork ? std::max<int64_t>(queries, 1)
                                               : std::min(kChunkQueries, (queries + 7) / 8);
}

}  // namespace

Fault votes(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior, float* votes,
            uint16_t* support, Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t step = chunk_queries(ballots.queries, work_per_query(ballots, outcomes));
    const int64_t chunks = (ballots.queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    const bool stream = ballots.queries * outcomes.models * 6 > kStreamBytes;
    Workspace workspace(outcomes, prior, threads);
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) {
        const int64_t begin = chunk * step, end = std::min(begin + step, ballots.queries);
        return kernels.votes(ballots, outcomes, prior, begin, end, votes, support, stream,
                             workspace.of(thread));
    });
}

Fault decide(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior,
             const Decision& decision, const Chosen& chosen, Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t step = chunk_queries(ballots.queries, work_per_query(ballots, outcomes));
    const int64_t chunks = (ballots.queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    Workspace workspace(outcomes, prior, threads, decision.preference);
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) {
        const int64_t begin = chunk * step, end = std::min(begin + step, ballots.queries);
        return kernels.decide(ballots, outcomes, prior, decision, begin, end, chosen,
                              workspace.of(thread));
    });
}

Fault expect(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior,
             const Decision& decision, const Expectation& expectation, const Expected& out,
             Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t work =
        work_per_query(ballots, outcomes) + 2 * expectation.dim * expectation.width;
    const int64_t step = chunk_queries(ballots.queries, work);
    const int64_t chunks = (ballots.queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    Workspace workspace(outcomes, prior, threads, decision.preference, &expectation);
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) {
        const int64_t begin = chunk * step, end = std::min(begin + step, ballots.queries);
        return kernels.expect(ballots, outcomes, prior, decision, expectation, begin, end, out,
                              workspace.of(thread));
    });
}

Fault task_scores(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior,
                  const int64_t* offsets, int64_t tasks, double threshold, const TaskScores& out,
                  Run run) {
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t models = outcomes.models;
    // Blocks of task i are first[i] .. first[i + 1]; a task of one block is summed where it ends
    // up.
    std::vector<int64_t> first(static_cast<size_t>(tasks) + 1), task_of;
    std::vector<int64_t> partial(static_cast<size_t>(tasks));
    int64_t partials = 0;
    for (int64_t i = 0; i < tasks; ++i) {
        const int64_t blocks = (offsets[i + 1] - offsets[i] + kTaskBlock - 1) / kTaskBlock;
        first[i + 1] = first[i] + blocks;
        partial[i] = partials;
        partials += blocks > 1 ? blocks : 0;
        task_of.insert(task_of.end(), static_cast<size_t>(blocks), i);
    }
    const int64_t blocks = first[tasks];
    std::vector<double> s1(static_cast<size_t>(partials * models)), s2(s1.size());
    std::vector<int64_t> support(s1.size());
    std::fill(out.s1, out.s1 + tasks * models, 0.0);
    std::fill(out.s2, out.s2 + tasks * models, 0.0);
    std::fill(out.support, out.support + tasks * models, int64_t{0});

    const bool small = ballots.queries * work_per_query(ballots, outcomes) < kInlineWork;
    const int threads = threads_for(small ? 1 : run.threads, blocks);
    Workspace workspace(outcomes, prior, threads);
    const Fault fault = for_chunks(blocks, threads, [&](int64_t block, int thread) {
        const int64_t i = task_of[block];
        const int64_t begin = offsets[i] + (block - first[i]) * kTaskBlock;
        const int64_t end = std::min(begin + kTaskBlock, offsets[i + 1]);
        const bool alone = first[i + 1] - first[i] == 1;
        const int64_t at = (alone ? i : partial[i] + block - first[i]) * models;
        return kernels.task(ballots, outcomes, prior, threshold, begin, end,
                            (alone ? out.s1 : s1.data()) + at, (alone ? out.s2 : s2.data()) + at,
                            (alone ? out.support : support.data()) + at, workspace.of(thread));
    });
    if (fault.kind != FaultKind::none) return fault;

    for (int64_t i = 0; i < tasks; ++i) {
        const int64_t count = first[i + 1] - first[i];
        const double queries = static_cast<double>(offsets[i + 1] - offsets[i]);
        for (int64_t m = 0; m < models; ++m) {
            const int64_t to = i * models + m;
            for (int64_t b = 0; count > 1 && b < count; ++b) {
                const int64_t from = (partial[i] + b) * models + m;
                out.s1[to] = add(out.s1[to], s1[from]);
                out.s2[to] += s2[from];
                out.support[to] += support[from];
            }
            const double nothing = std::numeric_limits<double>::quiet_NaN();
            out.s1[to] = count > 0 ? out.s1[to] / queries : nothing;
            out.s2[to] = count > 0 ? out.s2[to] / queries : nothing;
        }
    }
    return {};
}

Fault rank(const Ballots& candidates, const float* queries, const float* records, int64_t n_records,
           int64_t dim, int64_t* ids, float* similarities, Run run) {
    struct Candidate {
        float similarity;
        int64_t id;
    };
    struct Room {
        std::vector<double> query;
        std::vector<int64_t> ids;
        std::vector<float> similarities;
        std::vector<Candidate> best;
    };
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t columns = candidates.columns, k = candidates.k, n_queries = candidates.queries;
    const bool small = n_queries * columns * dim < kInlineWork;
    const int64_t step = small ? std::max<int64_t>(n_queries, 1)
                               : std::max<int64_t>(1, std::min<int64_t>(64, n_queries / 8));
    const int64_t chunks = (n_queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    std::vector<Room> rooms(static_cast<size_t>(threads));
    for (Room& room : rooms) {
        room.query.assign(static_cast<size_t>((dim + 15) / 16 * 16), 0.0);
        room.ids.resize(static_cast<size_t>(columns));
        room.similarities.resize(static_cast<size_t>(columns));
        room.best.resize(static_cast<size_t>(columns));
    }
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) -> Fault {
        Room& room = rooms[static_cast<size_t>(thread)];
        for (int64_t i = chunk * step; i < std::min((chunk + 1) * step, n_queries); ++i) {
            int64_t count = 0;
            for (int64_t j = 0; j < columns; ++j) {
                const int64_t id = candidates.ids[i * columns + j];
                if (id < -1 || id >= n_records) return {FaultKind::id, i, j};
                if (id >= 0) room.ids[static_cast<size_t>(count++)] = id;
            }
            std::copy(queries + i * dim, queries + (i + 1) * dim, room.query.begin());
            kernels.similarities(room.query.data(), records, dim, room.ids.data(), count,
                                 room.similarities.data());
            for (int64_t c = 0; c < count; ++c) {
                const float similarity = room.similarities[static_cast<size_t>(c)];
                const int64_t id = room.ids[static_cast<size_t>(c)];
                if (!(similarity - similarity == 0.0f)) return {FaultKind::similarity, i, id};
                room.best[static_cast<size_t>(c)] = {similarity, id};
            }
            const int64_t kept = std::min(k, count);
            const auto nearer = [](const Candidate& a, const Candidate& b) {
                return a.similarity > b.similarity || (a.similarity == b.similarity && a.id < b.id);
            };
            const auto begin = room.best.begin(), end = begin + count;
            if (kept < count) {
                std::partial_sort(begin, begin + kept, end, nearer);
            } else {
                std::sort(begin, end, nearer);
            }
            for (int64_t j = 0; j < k; ++j) {
                const bool there = j < kept;
                ids[i * k + j] = there ? room.best[static_cast<size_t>(j)].id : -1;
                similarities[i * k + j] = there ? room.best[static_cast<size_t>(j)].similarity
                                                : -std::numeric_limits<float>::infinity();
            }
        }
        return {};
    });
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
