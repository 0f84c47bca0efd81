// The loops over queries, compiled once for each instruction set: CMakeLists.txt defines BR_LEVEL.
//
// Everything but the table at the end has internal linkage, and no function of the standard library
// is instantiated here: nothing that was compiled for AVX-512 may be called on a machine without
// it.

#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "votes/levels.hpp"

namespace benchrouter {
namespace BR_LEVEL {
namespace {

// Float64 and int64 values at a time: one register of the level. (Wider vector types would be split
// by the compiler, through memory.)
#if defined(__AVX512F__)
constexpr int kWidth = 8;
#elif defined(__AVX2__)
constexpr int kWidth = 4;
#else
constexpr int kWidth = 2;
#endif
typedef double Lanes __attribute__((vector_size(8 * kWidth)));
typedef int64_t Masks __attribute__((vector_size(8 * kWidth)));
typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));

template <class Vector, class T>
inline Vector load(const T* from) {
    Vector vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

inline Lanes widen(const float* from) {
    return __builtin_convertvector(load<Floats>(from), Lanes);
}

// The values where the mask is all ones, 0 elsewhere.
inline Lanes masked(Lanes values, Masks mask) {
    return reinterpret_cast<Lanes>(reinterpret_cast<Masks>(values) & mask);
}

// ---------------------------------------------------------------------------------------- checks

struct Checked {
    Fault fault;
    bool holes;  // some id is -1
};

inline bool is_number(double x) {
    return x - x == 0.0;
}

// Refuses ids outside [-1, records) among the first `used` columns.
Checked check_ids(const Ballots& in, int64_t used, int64_t begin, int64_t end) {
    const int64_t columns = in.columns;
    const bool whole = used == columns;
    const int64_t rows = whole ? 1 : end - begin;
    const int64_t width = whole ? (end - begin) * columns : used;
    uint64_t wrong = 0;
    int64_t signs = 0;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t* ids = in.ids + (begin + r) * columns;
        for (int64_t j = 0; j < width; ++j) {
            wrong |= static_cast<uint64_t>(ids[j]) + 1 > static_cast<uint64_t>(in.records);
            signs |= ids[j];
        }
    }
    if (!wrong) return {{}, signs < 0};
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < used; ++j) {
            const int64_t id = in.ids[i * columns + j];
            if (id < -1 || id >= in.records) return {{FaultKind::id, i, j}, true};
        }
    }
    return {};
}

// Refuses weights of voting columns that are negative or not finite.
Fault check_weights(const Ballots& in, int64_t begin, int64_t end) {
    if (!in.weights) return {};
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < in.k; ++j) {
            const float w = in.weights[i * in.columns + j];
            if (!(w >= 0.0f && is_number(w))) return {FaultKind::weight, i, j};
        }
    }
    return {};
}

// Refuses similarities that are not finite where there is a neighbour.
Fault check_similarities(const Ballots& in, const Decision& decision, int64_t begin, int64_t end) {
    const int64_t columns = in.columns;
    const bool whole = decision.kappa == columns;
    const int64_t rows = whole ? 1 : end - begin;
    const int64_t width = whole ? (end - begin) * columns : decision.kappa;
    int64_t wrong = 0;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = (begin + r) * columns;
        for (int64_t j = at; j < at + width; ++j) {
            wrong |= static_cast<int64_t>(in.ids[j] >= 0 && !is_number(decision.similarities[j]));
        }
    }
    for (int64_t i = begin; wrong && i < end; ++i) {
        for (int64_t j = 0; j < decision.kappa; ++j) {
            const int64_t at = i * columns + j;
            if (in.ids[at] >= 0 && !is_number(decision.similarities[at])) {
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

// --------------------------------------------------------------------------------------- tallying

int32_t count_neighbours(const int64_t* ids, int64_t k) {
    int32_t found = 0;
    for (int64_t j = 0; j < k; ++j) found += ids[j] >= 0;
    return found;
}

// Adds the byte counters of models to sums, or replaces the sums by them.
inline void add_counts(const uint8_t* __restrict__ counts, int64_t models, bool replace,
                       double* __restrict__ sums) {
    if (replace) {
        for (int64_t m = 0; m < models; ++m) sums[m] = counts[m];
    } else {
        for (int64_t m = 0; m < models; ++m) sums[m] += counts[m];
    }
}

void tally_counts(const Ballots& in, const int64_t* ids, int64_t k, Scratch& scratch) {
    const int64_t models = in.models;
    for (int64_t word = 0; word < in.words; ++word) {
        const int64_t at = 64 * word;
        const int64_t live = padded_models(models - at < 64 ? models - at : 64, 16);
        for (int64_t from = 0; from < k || from == 0; from += kByteCount) {
            const int64_t some = k - from < kByteCount ? k - from : kByteCount;
            uint8_t counts[64];
            count_bits(in.bits, in.present, in.words, word, ids + from, some, counts);
            add_counts(counts, live, from == 0, scratch.sum + at);
            if (!in.present) continue;
            count_bits(in.present, nullptr, in.words, word, ids + from, some, counts);
            add_counts(counts, live, from == 0, scratch.total + at);
        }
    }
    const double found = count_neighbours(ids, k);
    const int64_t padded = padded_models(models, kWidth);
    for (int64_t m = 0; m < padded; ++m) {
        if (!in.present) scratch.total[m] = found;
        scratch.support[m] = scratch.total[m];
    }
}

// Outcomes of kWidth models on one record.
struct Group {
    Lanes values;
    Masks present;
};

struct BitRows {
    const Ballots& in;
    int64_t start(int64_t model) const { return model; }
    static Masks spread(uint64_t row, int64_t model) {
        Masks bit;
        for (int l = 0; l < kWidth; ++l) bit[l] = int64_t{1} << l;
        return (static_cast<int64_t>(row >> (model % 64)) & bit) == bit;
    }
    Group at(int64_t record, int64_t model) const {
        const int64_t word = record * in.words + model / 64;
        const uint64_t present = in.present ? in.present[word] : ~uint64_t{0};
        return {masked(1.0 + Lanes{}, spread(in.bits[word] & present, model)),
                spread(present, model)};
    }
};

// The last group of scores overlaps the one before it, so that nothing beyond a row is read; where
// a row is shorter than a group, it is copied.
struct ScoreRows {
    const Ballots& in;
    int64_t start(int64_t model) const {
        const int64_t last = in.models - kWidth;
        return last < 0 ? 0 : (model < last ? model : last);
    }
    Group at(int64_t record, int64_t model) const {
        const float* row = in.scores + record * in.models + model;
        float few[kWidth];
        if (in.models < kWidth) {
            for (int m = 0; m < kWidth; ++m) few[m] = m < in.models ? row[m] : 0.0f;
            row = few;
        }
        const Lanes values = widen(row);
        return {values, values == values};
    }
};

template <class Rows>
void tally_rows(const Rows& rows, int64_t models, const int64_t* ids, const float* weights,
                int64_t k, Scratch& scratch) {
    for (int64_t group = 0; group < models; group += kWidth) {
        const int64_t model = rows.start(group);
        Lanes sum = {}, total = {}, support = {};
        for (int64_t j = 0; j < k; ++j) {
            if (ids[j] < 0) continue;
            const Group outcome = rows.at(ids[j], model);
            const double w = weights ? weights[j] : 1.0;
            sum += masked(w * outcome.values, outcome.present);
            total += masked(w + Lanes{}, outcome.present);
            support += masked(1.0 + Lanes{}, outcome.present);
        }
        memcpy(scratch.sum + model, &sum, sizeof sum);
        memcpy(scratch.total + model, &total, sizeof total);
        memcpy(scratch.support + model, &support, sizeof support);
    }
}

// Sums of finite scores are finite in float64, so a sum that is not tells of an infinite score.
Fault check_sums(const Ballots& in, const int64_t* ids, int64_t k, const Scratch& scratch) {
    bool finite = true;
    for (int64_t m = 0; m < in.models; ++m) finite &= is_number(scratch.sum[m]);
    if (finite) return {};
    for (int64_t j = 0; j < k; ++j) {
        if (ids[j] < 0) continue;
        for (int64_t m = 0; m < in.models; ++m) {
            const float score = in.scores[ids[j] * in.models + m];
            if (score == score && !is_number(score)) return {FaultKind::score, ids[j], m};
        }
    }
    return {};
}

// Fills sum, total and support of every model for one query.
Fault tally(const Ballots& in, int64_t query, Scratch& scratch) {
    const int64_t* ids = in.ids + query * in.columns;
    const float* weights = in.weights ? in.weights + query * in.columns : nullptr;
    if (in.bits && !weights) {
        tally_counts(in, ids, in.k, scratch);
        return {};
    }
    if (in.bits) {
        tally_rows(BitRows{in}, in.models, ids, weights, in.k, scratch);
        return {};
    }
    tally_rows(ScoreRows{in}, in.models, ids, weights, in.k, scratch);
    return check_sums(in, ids, in.k, scratch);
}

// The votes of one query in float64, after tally(). Whole registers: what stands beyond the last
// model is divided as well and not looked at.
void value_votes(const Ballots& in, double prior_weight, Scratch& scratch) {
    const int64_t padded = padded_models(in.models, kWidth);
    for (int64_t m = 0; m < padded; ++m) {
        scratch.value[m] = vote(scratch.sum[m], scratch.total[m], scratch.support[m],
                                scratch.prior[m], prior_weight);
    }
}

constexpr int64_t kAhead = 4;

// Asks for the rows of a query that comes soon; the rows of large tables are far away.
inline void prefetch_rows(const Ballots& in, int64_t query) {
    const int64_t* ids = in.ids + query * in.columns;
    for (int64_t j = 0; j < in.k; ++j) {
        if (ids[j] < 0) continue;
        if (in.bits) {
            __builtin_prefetch(in.bits + ids[j] * in.words);
            if (in.present) __builtin_prefetch(in.present + ids[j] * in.words);
        } else {
            const float* row = in.scores + ids[j] * in.models;
            for (int64_t m = 0; m < in.models; m += 16) __builtin_prefetch(row + m);
        }
    }
}

// ------------------------------------------------------------------------------------------ votes

#if defined(__SSE2__)
// Writes whole cache lines past the caches; `to` is where a line begins.
inline void stream_line(char* to, const char* from) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#else
    for (int part = 0; part < 64; part += 16) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + part),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part)));
    }
#endif
}
#endif

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
            stream_line(outlet.to + sent, outlet.buffer + sent);
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

// Copies as votes are written: what memory allows, for benchmarks/votes.py.
void copy(char* to, const char* from, int64_t bytes) {
    int64_t done = 0;
#if defined(__SSE2__)
    if ((reinterpret_cast<uintptr_t>(to) & 63) == 0) {
        for (; done + 64 <= bytes; done += 64) stream_line(to + done, from + done);
        _mm_sfence();
    }
#endif
    memcpy(to + done, from + done, static_cast<size_t>(bytes - done));
}

// Sends out what is still held.
inline void finish(Outlet& outlet) {
    if (outlet.held > 0) memcpy(outlet.to, outlet.buffer, static_cast<size_t>(outlet.held));
#if defined(__SSE2__)
    if (outlet.stream) _mm_sfence();
#endif
}

// The votes and the support of models from their byte counters.
inline void divide_counts(const uint8_t* __restrict__ correct, const uint8_t* __restrict__ present,
                          const float* __restrict__ prior, int64_t models,
                          float* __restrict__ votes, uint16_t* __restrict__ support) {
    for (int64_t m = 0; m < models; ++m) {
        votes[m] = vote_of_counts(correct[m], present[m], prior[m]);
        support[m] = present[m];
    }
}

// Unweighted votes of a block from 0/1 correctness, without a prior, at most 255 neighbours.
template <bool kPresent>
void count_block(const Ballots& in, int64_t begin, int64_t end, const Scratch& scratch,
                 float* votes, uint16_t* support) {
    const int64_t words = in.words, k = in.k, models = in.models;
    for (int64_t i = begin; i < end; ++i, votes += models, support += models) {
        const int64_t* ids = in.ids + i * in.columns;
        uint8_t correct[64], present[64];
        if (!kPresent) memset(present, static_cast<int>(count_neighbours(ids, k)), sizeof present);
        for (int64_t word = 0; word < words; ++word) {
            count_bits(in.bits, kPresent ? in.present : nullptr, words, word, ids, k, correct);
            if (kPresent) count_bits(in.present, nullptr, words, word, ids, k, present);
            const int64_t from = 64 * word;
            const int64_t live = models - from < 64 ? models - from : 64;
            divide_counts(correct, present, scratch.prior + from, padded_models(live, 16),
                          votes + from, support + from);
        }
    }
}

#if defined(__AVX512BW__)
// As count_block(), where every neighbour is there and no outcome is missing: a vote is one of the
// k + 1 <= 32 quotients, looked up. Support is k everywhere and is left to the caller.
constexpr int64_t kTableVotes = 31;

template <bool kOneWord>
void look_up_block(const Ballots& in, int64_t begin, int64_t end, const float* quotients,
                   float* votes) {
    const int64_t words = kOneWord ? 1 : in.words, k = in.k, models = in.models;
    const __m512 low = _mm512_loadu_ps(quotients), high = _mm512_loadu_ps(quotients + 16);
    const __m512i one = _mm512_set1_epi8(1);
    for (int64_t i = begin; i < end; ++i, votes += models) {
        const int64_t* ids = in.ids + i * in.columns;
        for (int64_t word = 0; word < words; ++word) {
            const uint64_t* bits = in.bits + word;
            __m512i sums = _mm512_setzero_si512();
#pragma GCC unroll 2
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

Fault tally_block(const Ballots& in, int64_t begin, int64_t end, Scratch& scratch, float* votes,
                  uint16_t* support) {
    const int64_t padded = padded_models(in.models, 16);
    for (int64_t i = begin; i < end; ++i, votes += in.models, support += in.models) {
        if (i + kAhead < end) prefetch_rows(in, i + kAhead);
        if (const Fault fault = tally(in, i, scratch)) return fault;
        value_votes(in, in.prior_weight, scratch);
        for (int64_t m = 0; m < padded; ++m) {  // what is too much is written over next
            votes[m] = static_cast<float>(scratch.value[m]);
            support[m] = static_cast<uint16_t>(scratch.support[m]);
        }
    }
    return {};
}

// Asks for the neighbours of the block to come while this one is computed.
inline void prefetch_ids(const Ballots& in, int64_t begin, int64_t end) {
    const char* to = reinterpret_cast<const char*>(in.ids + end * in.columns);
    const char* from = reinterpret_cast<const char*>(in.ids + begin * in.columns);
    for (; from < to; from += 64) __builtin_prefetch(from);
}

Fault votes(const Ballots& in, int64_t begin, int64_t end, float* out, uint16_t* out_support,
            bool stream, Scratch& scratch) {
    const int64_t models = in.models, step = block_queries(models);
    const bool counted = in.bits && !in.weights && in.prior_weight == 0.0 && in.k <= kByteCount;
    Outlet votes{scratch.block_votes, reinterpret_cast<char*>(out + begin * models), stream, 0};
    Outlet support{scratch.block_support, reinterpret_cast<char*>(out_support + begin * models),
                   stream, 0};
#if defined(__AVX512BW__)
    bool all_k = false;  // whether the outlet of the support holds k throughout
    float quotients[kTableVotes + 1] = {};
    for (int32_t c = 0; c <= kTableVotes && c <= in.k; ++c) {
        quotients[c] = vote_of_counts(c, static_cast<int32_t>(in.k), 0.0f);
    }
#endif
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        prefetch_ids(in, to, to + step < end ? to + step : end);
        const Checked ids = check_ids(in, in.k, from, to);
        if (ids.fault) return ids.fault;
        if (const Fault fault = check_weights(in, from, to)) return fault;
        float* v = room<float>(votes);
        uint16_t* s = room<uint16_t>(support);
        bool looked_up = false;
#if defined(__AVX512BW__)
        looked_up = counted && !in.present && !ids.holes && in.k > 0 && in.k <= kTableVotes;
        if (looked_up) {
            in.words == 1 ? look_up_block<true>(in, from, to, quotients, v)
                          : look_up_block<false>(in, from, to, quotients, v);
            // A cache line beyond the block as well: send() moves whole lines.
            for (int64_t at = 0; !all_k && at < step * models + kModelGroup; ++at) {
                s[at] = static_cast<uint16_t>(in.k);
            }
        }
        all_k = looked_up;
#endif
        if (!looked_up && counted) {
            in.present ? count_block<true>(in, from, to, scratch, v, s)
                       : count_block<false>(in, from, to, scratch, v, s);
        } else if (!looked_up) {
            if (const Fault fault = tally_block(in, from, to, scratch, v, s)) return fault;
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
void score_models(const Ballots& in, const Decision& decision, double u, Scratch& scratch) {
    const int64_t models = in.models, padded = padded_models(models, kWidth);
    if (decision.rule == Rule::mean) {
        for (int64_t m = 0; m < padded; ++m) {
            scratch.score[m] = static_cast<float>(scratch.value[m]);
        }
    } else {
        const GridCell cell = find_cell({decision.p_start, decision.p_step, decision.grid_size}, u);
        const float* low = decision.p_table + cell.low * models;
        const float* high = decision.p_table + cell.high * models;
        for (int64_t m = 0; m < models; ++m) {
            const double p = interpolate(low[m], high[m], cell.fraction);
            scratch.score[m] = static_cast<float>(s3(scratch.value[m] > decision.threshold, p));
        }
    }
    for (int64_t m = models; m < padded; ++m) scratch.score[m] = -__builtin_inff();
}

// Leaves models that may not be chosen without a score and without support.
void exclude_models(const Ballots& in, const bool* allowed, Scratch& scratch) {
    for (int64_t m = 0; m < in.models; ++m) {
        scratch.score[m] = allowed[m] ? scratch.score[m] : -__builtin_inff();
        scratch.support[m] = allowed[m] ? scratch.support[m] : 0.0;
    }
}

// The model that comes first by (score, then preference), and the best score but its own.
struct Best {
    int64_t model;
    float other;
};

// One integer holds a score, in an order of signed integers, above a model's reversed preference:
// the two largest of them are found without a branch.
Best find_best(const Ballots& in, const Decision& decision, const Scratch& scratch) {
    const Masks nothing = INT64_MIN + Masks{};
    Masks first = nothing, second = nothing;
    for (int64_t m = 0; m < in.models; m += kWidth) {
        const Floats zero = {};  // -0 + 0 = 0: equal scores have equal bits
        const Floats scores = load<Floats>(scratch.score + m) + zero;
        Ints bits = reinterpret_cast<Ints>(scores);
        bits ^= (bits >> 31) & INT32_MAX;
        const Ints reversed = INT32_MAX - load<Ints>(scratch.preference + m);
        const Masks keys =
            (__builtin_convertvector(bits, Masks) << 32) | __builtin_convertvector(reversed, Masks);
        const Masks lower = keys < first ? keys : first;
        first = keys < first ? first : keys;
        second = lower < second ? second : lower;
    }
    int64_t best[kWidth], next[kWidth];
    memcpy(best, &first, sizeof best);
    memcpy(next, &second, sizeof next);
    for (int width = kWidth / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; ++l) {
            const int64_t a = best[l], b = best[l + width];
            const int64_t lower = a < b ? a : b,
                          other = next[l] < next[l + width] ? next[l + width] : next[l];
            best[l] = a < b ? b : a;
            next[l] = lower < other ? other : lower;
        }
    }
    const int64_t place = INT32_MAX - (best[0] & INT32_MAX);
    int32_t bits = static_cast<int32_t>(next[0] >> 32);
    bits ^= (bits >> 31) & INT32_MAX;
    float other;
    memcpy(&other, &bits, sizeof other);
    // Without neighbours all scores of rule "s3" are NaN, which may sort below the padding.
    return {decision.order[place < in.models ? place : 0], other};
}

// Writes the decision of one query from its scores, support and distance.
void choose(const Ballots& in, const Decision& decision, double u, int64_t query,
            const Scratch& scratch, const Chosen& out) {
    double all_support = 0.0;
    for (int64_t m = 0; m < in.models; ++m) all_support += scratch.support[m];
    const bool fallback = all_support == 0.0 || !(u <= decision.distance_limit);
    const Best best = find_best(in, decision, scratch);
    const int64_t model = fallback ? decision.fallback_model : best.model;
    const float other = model == best.model ? best.other : scratch.score[best.model];
    out.model[query] = static_cast<int32_t>(model);
    out.score[query] = scratch.score[model];
    out.margin[query] = decision.n_allowed == 1 ? 0.0f : scratch.score[model] - other;
    out.distance[query] = static_cast<float>(u);
    out.fallback[query] = fallback;
}

Fault decide(const Ballots& in, const Decision& decision, int64_t begin, int64_t end,
             const Chosen& out, Scratch& scratch) {
    constexpr int64_t step = 32;
    const int64_t used = in.k > decision.kappa ? in.k : decision.kappa;
    const double prior_weight = decision.rule == Rule::s3 ? 0.0 : in.prior_weight;
    for (int64_t from = begin; from < end; from += step) {
        const int64_t to = end - from < step ? end : from + step;
        const Checked ids = check_ids(in, used, from, to);
        if (ids.fault) return ids.fault;
        if (const Fault fault = check_weights(in, from, to)) return fault;
        if (const Fault fault = check_similarities(in, decision, from, to)) return fault;
        for (int64_t i = from; i < to; ++i) {
            if (i + kAhead < to) prefetch_rows(in, i + kAhead);
            if (const Fault fault = tally(in, i, scratch)) return fault;
            value_votes(in, prior_weight, scratch);
            const int64_t row = i * in.columns;
            const double u =
                mean_distance(in.ids + row, decision.similarities + row, decision.kappa);
            score_models(in, decision, u, scratch);
            if (decision.allowed) exclude_models(in, decision.allowed, scratch);
            choose(in, decision, u, i, scratch, out);
        }
    }
    return {};
}

// ----------------------------------------------------------------------------- expected scores

#include "scores/expect_kernel.hpp"

// ------------------------------------------------------------------------------------------ tasks

Fault task(const Ballots& in, double threshold, int64_t begin, int64_t end, const TaskScores& out,
           Scratch& scratch) {
    const Checked ids = check_ids(in, in.k, begin, end);
    if (ids.fault) return ids.fault;
    if (const Fault fault = check_weights(in, begin, end)) return fault;
    // Summed apart from what other threads write beside.
    const int64_t padded = padded_models(in.models, kWidth);
    for (int64_t m = 0; m < padded; ++m) {
        scratch.s1[m] = 0.0;
        scratch.s2[m] = 0.0;
        scratch.supported[m] = 0.0;
    }
    for (int64_t i = begin; i < end; ++i) {
        if (i + kAhead < end) prefetch_rows(in, i + kAhead);
        if (const Fault fault = tally(in, i, scratch)) return fault;
        value_votes(in, in.prior_weight, scratch);
        for (int64_t m = 0; m < padded; ++m) {
            scratch.s1[m] = add(scratch.s1[m], scratch.value[m]);
            scratch.s2[m] += scratch.value[m] > threshold ? 1.0 : 0.0;
            scratch.supported[m] += scratch.support[m] > 0.0 ? 1.0 : 0.0;
        }
    }
    for (int64_t m = 0; m < in.models; ++m) {
        out.s1[m] = scratch.s1[m];
        out.s2[m] = scratch.s2[m];
        out.support[m] = static_cast<int64_t>(scratch.supported[m]);
    }
    return {};
}

// ----------------------------------------------------------------------------------- similarities

// Sixteen partial sums, halved by a fixed tree: the same bits at every level. Products of two
// float32 are exact in float64, so it does not matter whether they are fused into the sums.
constexpr int64_t kLanes = 16;

constexpr int kParts = kLanes / kWidth;

inline float sum_lanes(const Lanes* parts) {
    double sums[kLanes];
    memcpy(sums, parts, sizeof sums);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; ++l) sums[l] += sums[l + width];
    }
    return static_cast<float>(sums[0]);
}

template <int kRecords>
void similarities_of(const double* query, const float* records, int64_t dim, const int64_t* ids,
                     float* out) {
    const float* rows[kRecords];
    Lanes sums[kRecords][kParts] = {};
    for (int r = 0; r < kRecords; ++r) rows[r] = records + ids[r] * dim;
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
        for (int part = 0; part < kParts; ++part) {
            const Lanes values = load<Lanes>(query + i + part * kWidth);
            for (int r = 0; r < kRecords; ++r) {
                sums[r][part] += values * widen(rows[r] + i + part * kWidth);
            }
        }
    }
    for (int r = 0; r < kRecords; ++r) {
        float rest[kLanes] = {};
        if (i < dim) memcpy(rest, rows[r] + i, static_cast<size_t>(dim - i) * sizeof(float));
        for (int part = 0; i < dim && part < kParts; ++part) {
            sums[r][part] += load<Lanes>(query + i + part * kWidth) * widen(rest + part * kWidth);
        }
        out[r] = sum_lanes(sums[r]);
    }
}

void similarities(const double* query, const float* records, int64_t dim, const int64_t* ids,
                  int64_t count, float* out) {
#if defined(__AVX512F__)
    constexpr int together = 4;
#else
    constexpr int together = 1;
#endif
    int64_t c = 0;
    for (; c + together <= count; c += together) {
        similarities_of<together>(query, records, dim, ids + c, out + c);
    }
    for (; c < count; ++c) similarities_of<1>(query, records, dim, ids + c, out + c);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {votes, decide, expect, task, similarities, copy};

}  // namespace BR_LEVEL
}  // namespace benchrouter
