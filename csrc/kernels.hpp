// The loops over queries. Included once per instruction set by level_*.cpp, which define BR_LEVEL.
//
// Everything but the table at the end has internal linkage, and no function of the standard library
// is instantiated here: nothing that was compiled for AVX-512 may be called on a machine without
// it.

#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "levels.hpp"

namespace benchrouter {
namespace BR_LEVEL {
namespace {

// ---------------------------------------------------------------------------------------- checks

struct Checked {
    Fault fault;
    bool holes;  // some id is -1
};

inline bool is_number(double x) {
    return x - x == 0.0;
}

// Refuses ids outside [-1, records) among the first `used` columns.
Checked check_ids(const Ballots& ballots, int64_t records, int64_t used, int64_t begin,
                  int64_t end) {
    const int64_t columns = ballots.columns;
    const bool whole = used == columns;
    const int64_t rows = whole ? 1 : end - begin;
    const int64_t width = whole ? (end - begin) * columns : used;
    uint64_t wrong = 0;
    int64_t signs = 0;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t* ids = ballots.ids + (begin + r) * columns;
        for (int64_t j = 0; j < width; ++j) {
            wrong |= static_cast<uint64_t>(ids[j]) + 1 > static_cast<uint64_t>(records);
            signs |= ids[j];
        }
    }
    if (!wrong) return {{}, signs < 0};
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < used; ++j) {
            const int64_t id = ballots.ids[i * columns + j];
            if (id < -1 || id >= records) return {{FaultKind::id, i, j}, true};
        }
    }
    return {};
}

// Refuses weights of voting columns that are negative or not finite.
Fault check_weights(const Ballots& ballots, int64_t begin, int64_t end) {
    if (!ballots.weights) return {};
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < ballots.k; ++j) {
            const float w = ballots.weights[i * ballots.columns + j];
            if (!(w >= 0.0f && is_number(w))) return {FaultKind::weight, i, j};
        }
    }
    return {};
}

// Refuses similarities that are not finite where there is a neighbour.
Fault check_similarities(const Ballots& ballots, const Decision& decision, int64_t begin,
                         int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < decision.kappa; ++j) {
            const int64_t at = i * ballots.columns + j;
            if (ballots.ids[at] >= 0 && !is_number(decision.similarities[at])) {
                return {FaultKind::similarity, i, j};
            }
        }
    }
    return {};
}

// -------------------------------------------------------------------------------------- counting

// Counts, for each of the 64 models of word `word`, the set bits in the rows of at most 255
// neighbours; with a mask, only bits that are also set in the mask's row.
inline void count_bits(const uint64_t* bits, const uint64_t* mask, int64_t words, int64_t word,
                       const int64_t* ids, int64_t k, uint8_t* counts) {
#if defined(__AVX512BW__)
    const __m512i one = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        uint64_t row = bits[ids[j] * words + word];
        if (mask) row &= mask[ids[j] * words + word];
        sums = _mm512_mask_add_epi8(sums, _cvtu64_mask64(row), sums, one);
    }
    _mm512_storeu_si512(counts, sums);
#elif defined(__AVX2__)
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ull));
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i low = _mm256_setzero_si256(), high = low;
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        uint64_t row = bits[ids[j] * words + word];
        if (mask) row &= mask[ids[j] * words + word];
        const __m256i a = _mm256_set1_epi32(static_cast<int32_t>(row));
        const __m256i b = _mm256_set1_epi32(static_cast<int32_t>(row >> 32));
        const __m256i set_a = _mm256_and_si256(_mm256_shuffle_epi8(a, spread), bit);
        const __m256i set_b = _mm256_and_si256(_mm256_shuffle_epi8(b, spread), bit);
        low = _mm256_sub_epi8(low, _mm256_cmpeq_epi8(set_a, bit));
        high = _mm256_sub_epi8(high, _mm256_cmpeq_epi8(set_b, bit));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts + 32), high);
#else
    // Eight byte counters to a word: the product copies a byte of the row to each of them, the mask
    // leaves one bit in each, and adding 0x7f carries any such bit to the top.
    uint64_t sums[8] = {};
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        uint64_t row = bits[ids[j] * words + word];
        if (mask) row &= mask[ids[j] * words + word];
        for (int b = 0; b < 8; ++b) {
            const uint64_t byte = (row >> (8 * b)) & 0xff;
            const uint64_t spread = (byte * 0x0101010101010101ull) & 0x8040201008040201ull;
            sums[b] += ((spread + 0x7f7f7f7f7f7f7f7full) >> 7) & 0x0101010101010101ull;
        }
    }
    for (int b = 0; b < 8; ++b) {
        for (int i = 0; i < 8; ++i) counts[8 * b + i] = static_cast<uint8_t>(sums[b] >> (8 * i));
    }
#endif
}

// Byte counters hold 255; longer lists are counted in pieces.
constexpr int64_t kByteCount = 255;

void count_long(const Outcomes& outcomes, const uint64_t* bits, const uint64_t* mask,
                const int64_t* ids, int64_t k, int32_t* counts) {
    for (int64_t word = 0; word < outcomes.words; ++word) {
        int32_t* of_word = counts + 64 * word;
        for (int i = 0; i < 64; ++i) of_word[i] = 0;
        for (int64_t from = 0; from < k; from += kByteCount) {
            const int64_t some = k - from < kByteCount ? k - from : kByteCount;
            uint8_t bytes[64];
            count_bits(bits, mask, outcomes.words, word, ids + from, some, bytes);
            for (int i = 0; i < 64; ++i) of_word[i] += bytes[i];
        }
    }
}

// --------------------------------------------------------------------------------------- tallying

int32_t count_neighbours(const int64_t* ids, int64_t k) {
    int32_t found = 0;
    for (int64_t j = 0; j < k; ++j) found += ids[j] >= 0;
    return found;
}

void tally_counts(const Outcomes& outcomes, const int64_t* ids, int64_t k, Scratch& scratch) {
    const int64_t padded = padded_models(outcomes.models);
    count_long(outcomes, outcomes.bits, outcomes.present, ids, k, scratch.correct);
    if (outcomes.present) {
        count_long(outcomes, outcomes.present, nullptr, ids, k, scratch.support);
    } else {
        const int32_t found = count_neighbours(ids, k);
        for (int64_t m = 0; m < padded; ++m) scratch.support[m] = found;
    }
    for (int64_t m = 0; m < padded; ++m) {
        scratch.sum[m] = scratch.correct[m];
        scratch.total[m] = scratch.support[m];
    }
}

void tally_weighted_bits(const Outcomes& outcomes, const int64_t* ids, const float* weights,
                         int64_t k, Scratch& scratch) {
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        const double w = weights[j];
        for (int64_t word = 0; word < outcomes.words; ++word) {
            const int64_t at = ids[j] * outcomes.words + word;
            const uint64_t present = outcomes.present ? outcomes.present[at] : ~uint64_t{0};
            const uint64_t correct = outcomes.bits[at] & present;
            double* sum = scratch.sum + 64 * word;
            double* total = scratch.total + 64 * word;
            int32_t* support = scratch.support + 64 * word;
            for (int m = 0; m < 64; ++m) {
                sum[m] += (correct >> m) & 1 ? w : 0.0;
                total[m] += (present >> m) & 1 ? w : 0.0;
                support[m] += static_cast<int32_t>((present >> m) & 1);
            }
        }
    }
}

void tally_scores(const Outcomes& outcomes, const int64_t* ids, const float* weights, int64_t k,
                  Scratch& scratch) {
    const int64_t models = outcomes.models;
    double* __restrict__ sum = scratch.sum;
    double* __restrict__ total = scratch.total;
    int32_t* __restrict__ support = scratch.support;
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        const double w = weights ? weights[j] : 1.0;
        const float* __restrict__ row = outcomes.scores + ids[j] * models;
        for (int64_t m = 0; m < models; ++m) {
            const bool present = row[m] == row[m];
            sum[m] = add(sum[m], present ? mul(w, static_cast<double>(row[m])) : 0.0);
            total[m] = add(total[m], present ? w : 0.0);
            support[m] += present;
        }
    }
}

// Sums of finite scores are finite in float64, so a sum that is not tells of an infinite score.
Fault check_sums(const Outcomes& outcomes, const int64_t* ids, int64_t k, const Scratch& scratch) {
    bool finite = true;
    for (int64_t m = 0; m < outcomes.models; ++m) finite &= is_number(scratch.sum[m]);
    if (finite) return {};
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        for (int64_t m = 0; m < outcomes.models; ++m) {
            const float score = outcomes.scores[ids[j] * outcomes.models + m];
            if (score == score && !is_number(score)) return {FaultKind::score, ids[j], m};
        }
    }
    return {};
}

// Fills sum, total and support of every model for one query.
Fault tally(const Ballots& ballots, const Outcomes& outcomes, int64_t query, Scratch& scratch) {
    const int64_t* ids = ballots.ids + query * ballots.columns;
    const float* weights = ballots.weights ? ballots.weights + query * ballots.columns : nullptr;
    if (outcomes.bits && !weights) {
        tally_counts(outcomes, ids, ballots.k, scratch);
        return {};
    }
    const int64_t padded = padded_models(outcomes.models);
    for (int64_t m = 0; m < padded; ++m) {
        scratch.sum[m] = 0.0;
        scratch.total[m] = 0.0;
        scratch.support[m] = 0;
    }
    if (outcomes.bits) {
        tally_weighted_bits(outcomes, ids, weights, ballots.k, scratch);
        return {};
    }
    tally_scores(outcomes, ids, weights, ballots.k, scratch);
    return check_sums(outcomes, ids, ballots.k, scratch);
}

// The votes of one query in float64, after tally().
void value_votes(const Outcomes& outcomes, double prior_weight, Scratch& scratch) {
    for (int64_t m = 0; m < outcomes.models; ++m) {
        scratch.value[m] = vote(scratch.sum[m], scratch.total[m], scratch.support[m],
                                scratch.prior[m], prior_weight);
    }
}

// Asks for the rows of a query that comes soon; the rows of large tables are far away.
inline void prefetch_rows(const Ballots& ballots, const Outcomes& outcomes, int64_t query) {
    const int64_t* ids = ballots.ids + query * ballots.columns;
    for (int64_t j = 0; j < ballots.k; ++j) {
        if (ids[j] < 0) continue;
        if (outcomes.bits) {
            __builtin_prefetch(outcomes.bits + ids[j] * outcomes.words);
            if (outcomes.present) __builtin_prefetch(outcomes.present + ids[j] * outcomes.words);
        } else {
            const float* row = outcomes.scores + ids[j] * outcomes.models;
            for (int64_t m = 0; m < outcomes.models; m += 16) __builtin_prefetch(row + m);
        }
    }
}

// ------------------------------------------------------------------------------------------ votes

// An output on its way to memory: values are made in `buffer`, behind the `held` bytes that did not
// fill a cache line, and leave it in whole lines, past the caches if `stream` says so.
struct Outlet {
    char* buffer;
    char* to;
    bool stream;
    int64_t held;
};

template <class T>
T* room(const Outlet& outlet) {
    return reinterpret_cast<T*>(outlet.buffer + outlet.held);
}

// Sends out what has been held and the `bytes` that were made behind it.
inline void send(Outlet& outlet, int64_t bytes) {
    bytes += outlet.held;
    int64_t sent = bytes;
#if defined(__SSE2__)
    if (outlet.stream) {
        // Only a thread's first piece starts within a line.
        sent = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(outlet.to) & 63);
        if (sent > bytes) sent = bytes;
        if (sent > 0) memcpy(outlet.to, outlet.buffer, static_cast<size_t>(sent));
        for (; sent + 64 <= bytes; sent += 64) {
            char* to = outlet.to + sent;
            const char* from = outlet.buffer + sent;
#if defined(__AVX512F__)
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#else
            for (int part = 0; part < 64; part += 16) {
                _mm_stream_si128(reinterpret_cast<__m128i*>(to + part),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part)));
            }
#endif
        }
        outlet.held = bytes - sent;
        outlet.to += sent;
        char rest[64];  // of which `held` count; a copy of fixed size needs no call
        memcpy(rest, outlet.buffer + sent, sizeof rest);
        memcpy(outlet.buffer, rest, sizeof rest);
        return;
    }
#endif
    if (sent > 0) memcpy(outlet.to, outlet.buffer, static_cast<size_t>(sent));
    outlet.to += sent;
}

// Sends out what is still held.
inline void finish(Outlet& outlet) {
    if (outlet.held > 0) memcpy(outlet.to, outlet.buffer, static_cast<size_t>(outlet.held));
#if defined(__SSE2__)
    if (outlet.stream) _mm_sfence();
#endif
}

// Unweighted votes of a block from 0/1 correctness, without a prior, at most 255 neighbours.
template <bool kPresent>
void count_block(const Ballots& ballots, const Outcomes& outcomes, int64_t begin, int64_t end,
                 const Scratch& scratch, float* votes, uint16_t* support) {
    const int64_t words = outcomes.words, k = ballots.k;
    for (int64_t i = begin; i < end; ++i, votes += outcomes.models, support += outcomes.models) {
        const int64_t* ids = ballots.ids + i * ballots.columns;
        const int32_t found = kPresent ? 0 : count_neighbours(ids, k);
        for (int64_t word = 0; word < words; ++word) {
            uint8_t correct[64], present[64];
            count_bits(outcomes.bits, kPresent ? outcomes.present : nullptr, words, word, ids, k,
                       correct);
            if (kPresent) count_bits(outcomes.present, nullptr, words, word, ids, k, present);
            for (int64_t group = 64 * word; group < outcomes.models && group < 64 * word + 64;
                 group += 16) {
                for (int m = 0; m < 16; ++m) {
                    const int32_t there = kPresent ? present[group % 64 + m] : found;
                    votes[group + m] =
                        vote_of_counts(correct[group % 64 + m], there, scratch.prior[group + m]);
                    support[group + m] = static_cast<uint16_t>(there);
                }
            }
        }
    }
}

#if defined(__AVX512BW__)
// As count_block(), where every neighbour is there and no outcome is missing: a vote is one of the
// k + 1 <= 32 quotients, looked up. Support is k everywhere and is left to the caller.
constexpr int64_t kTableVotes = 31;

template <bool kOneWord>
void look_up_block(const Ballots& ballots, const Outcomes& outcomes, int64_t begin, int64_t end,
                   float* votes) {
    const int64_t words = kOneWord ? 1 : outcomes.words, k = ballots.k, models = outcomes.models;
    alignas(64) float quotients[32] = {};
    for (int64_t c = 0; c <= k; ++c) {
        quotients[c] = vote_of_counts(static_cast<int32_t>(c), static_cast<int32_t>(k), 0.0f);
    }
    const __m512 low = _mm512_load_ps(quotients), high = _mm512_load_ps(quotients + 16);
    const __m512i one = _mm512_set1_epi8(1);
    for (int64_t i = begin; i < end; ++i, votes += models) {
        const int64_t* ids = ballots.ids + i * ballots.columns;
        for (int64_t word = 0; word < words; ++word) {
            const uint64_t* bits = outcomes.bits + word;
            __m512i sums = _mm512_setzero_si512();
            for (int64_t j = 0; j < k; ++j) {
                sums = _mm512_mask_add_epi8(sums, _cvtu64_mask64(bits[ids[j] * words]), sums, one);
            }
            alignas(64) uint8_t counts[64];
            _mm512_store_si512(counts, sums);
            const int64_t live = models - 64 * word < 64 ? models - 64 * word : 64;
            for (int64_t m = 0; m < live; m += 16) {
                const __m512i count = _mm512_cvtepu8_epi32(
                    _mm_load_si128(reinterpret_cast<const __m128i*>(counts + m)));
                _mm512_storeu_ps(votes + 64 * word + m, _mm512_permutex2var_ps(low, count, high));
            }
        }
    }
}
#endif

Fault tally_block(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior,
                  int64_t begin, int64_t end, Scratch& scratch, float* votes, uint16_t* support) {
    for (int64_t i = begin; i < end; ++i, votes += outcomes.models, support += outcomes.models) {
        const Fault fault = tally(ballots, outcomes, i, scratch);
        if (fault.kind != FaultKind::none) return fault;
        value_votes(outcomes, prior.weight, scratch);
        for (int64_t m = 0; m < outcomes.models; ++m) {
            votes[m] = static_cast<float>(scratch.value[m]);
            support[m] = static_cast<uint16_t>(scratch.support[m]);
        }
    }
    return {};
}

// Asks for the neighbours of the blocks to come while this one is computed.
inline void prefetch_ids(const Ballots& ballots, int64_t begin, int64_t end) {
    const char* to = reinterpret_cast<const char*>(ballots.ids + end * ballots.columns);
    const char* from = reinterpret_cast<const char*>(ballots.ids + begin * ballots.columns);
    for (; from < to; from += 64) __builtin_prefetch(from);
}

Fault votes(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior, int64_t begin,
            int64_t end, float* out, uint16_t* out_support, bool stream, Scratch& scratch) {
    const int64_t models = outcomes.models, step = block_queries(models);
    const bool counted =
        outcomes.bits && !ballots.weights && prior.weight == 0.0 && ballots.k <= kByteCount;
    Outlet votes{scratch.block_votes, reinterpret_cast<char*>(out + begin * models), stream, 0};
    Outlet support{scratch.block_support, reinterpret_cast<char*>(out_support + begin * models),
                   stream, 0};
#if defined(__AVX512BW__)
    bool all_k = false;  // whether the outlet of the support holds k throughout
#endif
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        prefetch_ids(ballots, to + step < end ? to + step : end,
                     to + 2 * step < end ? to + 2 * step : end);
        const Checked ids = check_ids(ballots, outcomes.records, ballots.k, from, to);
        if (ids.fault.kind != FaultKind::none) return ids.fault;
        Fault fault = check_weights(ballots, from, to);
        if (fault.kind != FaultKind::none) return fault;
        float* v = room<float>(votes);
        uint16_t* s = room<uint16_t>(support);
        bool looked_up = false;
#if defined(__AVX512BW__)
        looked_up =
            counted && !outcomes.present && !ids.holes && ballots.k > 0 && ballots.k <= kTableVotes;
        if (looked_up) {
            outcomes.words == 1 ? look_up_block<true>(ballots, outcomes, from, to, v)
                                : look_up_block<false>(ballots, outcomes, from, to, v);
            for (int64_t at = 0; !all_k && at < step * models; ++at) {
                s[at] = static_cast<uint16_t>(ballots.k);
            }
        }
        all_k = looked_up;
#endif
        if (!looked_up && counted) {
            outcomes.present ? count_block<true>(ballots, outcomes, from, to, scratch, v, s)
                             : count_block<false>(ballots, outcomes, from, to, scratch, v, s);
        } else if (!looked_up) {
            fault = tally_block(ballots, outcomes, prior, from, to, scratch, v, s);
            if (fault.kind != FaultKind::none) return fault;
        }
        send(votes, (to - from) * models * 4);
        send(support, (to - from) * models * 2);
    }
    finish(votes);
    finish(support);
    return {};
}

// -------------------------------------------------------------------------------------- decisions

// Mean cosine distance to the first kappa neighbours; NaN where there is none.
double mean_distance(const int64_t* ids, const float* similarities, int64_t kappa) {
    double sum = 0.0;
    int64_t found = 0;
    for (int64_t j = 0; j < kappa; ++j) {
        if (ids[j] < 0) continue;
        sum = add(sum, distance(similarities[j]));
        ++found;
    }
    return sum / static_cast<double>(found);
}

// Turns the votes in scratch.value into scores.
void score_models(const Outcomes& outcomes, const Decision& decision, double u, Scratch& scratch) {
    if (decision.rule == Rule::mean) {
        for (int64_t m = 0; m < outcomes.models; ++m) {
            scratch.score[m] = static_cast<float>(scratch.value[m]);
        }
        return;
    }
    const GridCell cell = find_cell({decision.p_start, decision.p_step, decision.grid_size}, u);
    const float* low = decision.p_table + cell.low * outcomes.models;
    const float* high = decision.p_table + cell.high * outcomes.models;
    for (int64_t m = 0; m < outcomes.models; ++m) {
        const double p = interpolate(low[m], high[m], cell.fraction);
        scratch.score[m] = static_cast<float>(s3(scratch.value[m] > decision.threshold, p));
    }
}

// Writes the decision of one query from its scores, support and distance.
void choose(const Outcomes& outcomes, const Decision& decision, double u, int64_t query,
            const Scratch& scratch, const Chosen& out) {
    int32_t any_support = 0;
    for (int64_t m = 0; m < outcomes.models; ++m) any_support |= scratch.support[m];
    const float lowest = -__builtin_inff();
    int64_t best = decision.order[0];
    float best_score = lowest, second = lowest;
    for (int64_t o = 0; o < outcomes.models; ++o) {
        const int64_t m = decision.order[o];
        const float score = scratch.score[m];
        if (score > best_score) {
            second = best_score;
            best_score = score;
            best = m;
        } else if (score > second) {
            second = score;
        }
    }
    const bool fallback = any_support == 0 || !(u <= decision.distance_limit);
    const int64_t model = fallback ? decision.fallback_model : best;
    const float other = model == best ? second : best_score;
    out.model[query] = static_cast<int32_t>(model);
    out.score[query] = scratch.score[model];
    out.margin[query] = outcomes.models == 1 ? 0.0f : scratch.score[model] - other;
    out.distance[query] = static_cast<float>(u);
    out.fallback[query] = fallback;
}

Fault decide(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior,
             const Decision& decision, int64_t begin, int64_t end, const Chosen& out,
             Scratch& scratch) {
    constexpr int64_t step = 128;
    const int64_t used = ballots.k > decision.kappa ? ballots.k : decision.kappa;
    const double prior_weight = decision.rule == Rule::s3 ? 0.0 : prior.weight;
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        const Checked ids = check_ids(ballots, outcomes.records, used, from, to);
        if (ids.fault.kind != FaultKind::none) return ids.fault;
        Fault fault = check_weights(ballots, from, to);
        if (fault.kind != FaultKind::none) return fault;
        fault = check_similarities(ballots, decision, from, to);
        if (fault.kind != FaultKind::none) return fault;
        for (int64_t i = from; i < to; ++i) {
            if (i + 4 < to) prefetch_rows(ballots, outcomes, i + 4);
            fault = tally(ballots, outcomes, i, scratch);
            if (fault.kind != FaultKind::none) return fault;
            value_votes(outcomes, prior_weight, scratch);
            const int64_t row = i * ballots.columns;
            const double u =
                mean_distance(ballots.ids + row, decision.similarities + row, decision.kappa);
            score_models(outcomes, decision, u, scratch);
            choose(outcomes, decision, u, i, scratch, out);
        }
    }
    return {};
}

// ------------------------------------------------------------------------------------------ tasks

Fault task(const Ballots& ballots, const Outcomes& outcomes, const Prior& prior, double threshold,
           int64_t begin, int64_t end, double* s1, double* s2, int64_t* support, Scratch& scratch) {
    const Checked ids = check_ids(ballots, outcomes.records, ballots.k, begin, end);
    if (ids.fault.kind != FaultKind::none) return ids.fault;
    Fault fault = check_weights(ballots, begin, end);
    if (fault.kind != FaultKind::none) return fault;
    for (int64_t i = begin; i < end; ++i) {
        fault = tally(ballots, outcomes, i, scratch);
        if (fault.kind != FaultKind::none) return fault;
        value_votes(outcomes, prior.weight, scratch);
        for (int64_t m = 0; m < outcomes.models; ++m) {
            s1[m] = add(s1[m], scratch.value[m]);
            s2[m] += scratch.value[m] > threshold ? 1.0 : 0.0;
            support[m] += scratch.support[m] > 0;
        }
    }
    return {};
}

// ----------------------------------------------------------------------------------- similarities

// Sixteen partial sums, halved by a fixed tree: the same bits at every level. Products of two
// float32 are exact in float64, so it does not matter whether they are fused into the sums.
typedef double Lanes __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(32)));
constexpr int64_t kLanes = 16;

inline Lanes widen(const float* from) {
    Floats floats;
    memcpy(&floats, from, sizeof floats);
    return __builtin_convertvector(floats, Lanes);
}

inline Lanes load(const double* from) {
    Lanes lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline float sum_lanes(const Lanes& low, const Lanes& high) {
    const Lanes eight = low + high;
    double sums[8];
    memcpy(sums, &eight, sizeof sums);
    for (int width = 4; width > 0; width /= 2) {
        for (int l = 0; l < width; ++l) sums[l] += sums[l + width];
    }
    return static_cast<float>(sums[0]);
}

template <int kRecords>
void similarities_of(const double* query, const float* records, int64_t dim, const int64_t* ids,
                     float* out) {
    const float* rows[kRecords];
    Lanes low[kRecords], high[kRecords];
    for (int r = 0; r < kRecords; ++r) {
        rows[r] = records + ids[r] * dim;
        low[r] = high[r] = Lanes{};
    }
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
        const Lanes query_low = load(query + i), query_high = load(query + i + 8);
        for (int r = 0; r < kRecords; ++r) {
            low[r] += query_low * widen(rows[r] + i);
            high[r] += query_high * widen(rows[r] + i + 8);
        }
    }
    for (int r = 0; r < kRecords; ++r) {
        if (i < dim) {
            float rest[kLanes] = {};
            memcpy(rest, rows[r] + i, static_cast<size_t>(dim - i) * sizeof(float));
            low[r] += load(query + i) * widen(rest);
            high[r] += load(query + i + 8) * widen(rest + 8);
        }
        out[r] = sum_lanes(low[r], high[r]);
    }
}

void similarities(const double* query, const float* records, int64_t dim, const int64_t* ids,
                  int64_t count, float* out) {
#if defined(__AVX512F__)
    constexpr int together = 4;
#else
    constexpr int together = 2;
#endif
    int64_t c = 0;
    for (; c + together <= count; c += together) {
        similarities_of<together>(query, records, dim, ids + c, out + c);
    }
    for (; c < count; ++c) similarities_of<1>(query, records, dim, ids + c, out + c);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {votes, decide, task, similarities};

}  // namespace BR_LEVEL
}  // namespace benchrouter
