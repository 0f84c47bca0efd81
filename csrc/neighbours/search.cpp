// Exact search: cuts queries (or, where they are few, records) into pieces for the threads, and
// keeps for each query the records that may still be among its nearest.
#include "neighbours/search.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/threads.hpp"
#include "embeddings/encoder_levels.hpp"
#include "neighbours/search_levels.hpp"
#include "votes/levels.hpp"

namespace benchrouter {
namespace {

constexpr int64_t kBlockBytes = 128 << 10;  // of codes, compared with many queries while in cache
constexpr int64_t kManyQueries = 40 * kTileQueries;
constexpr int64_t kFewestWaiting = 256;
// Below this many bytes of codes a call takes less time than a thread takes to start.
constexpr int64_t kInlineBytes = 8 << 20;
constexpr int64_t kInlineProducts = 1 << 16;  // the same for single products
// More than float32 rounds off in scaling a sum of codes, adding an error and subtracting a floor,
// of similarities up to 1.
constexpr double kRounding = 2e-6;

struct Found {
    float similarity;
    int64_t id;
};

bool is_finite(float x) {
    return x - x == 0.0f;
}

bool nearer(const Found& a, const Found& b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.id < b.id);
}

// A record that the codes do not rule out: similarity by codes, plus and minus the record's error.
struct Waiting {
    float most, least;
    int64_t id;
};

// What a search has found for one query so far.
class Shortlist {
public:
    Shortlist(int64_t k, int64_t capacity) : k_(k), waiting_(static_cast<size_t>(capacity)) {}

    // `error`: how far the query's own codes may move a similarity.
    void begin(const float* query, int64_t dim, double error) {
        query_.assign(static_cast<size_t>((dim + 15) / 16 * 16), 0.0);
        std::copy(query, query + dim, query_.begin());
        dim_ = dim;
        error_ = error;
        floor_ = -FLT_MAX;
        n_waiting_ = 0;
        best_.clear();
    }

    float floor() const { return floor_; }
    bool is_full() const {
        return n_waiting_ + kGroupRecords > static_cast<int64_t>(waiting_.size());
    }
    const std::vector<Found>& best() const { return best_; }

    void add(int64_t first_id, uint64_t passing, const float* similarities, const float* errors) {
        for (; passing != 0; passing &= passing - 1) {
            const int r = __builtin_ctzll(passing);
            waiting_[static_cast<size_t>(n_waiting_++)] = {
                similarities[r] + errors[r], similarities[r] - errors[r], first_id + r};
        }
    }

    // Makes room: drops what cannot be among the k nearest, and compares exactly where the bounds
    // leave too many. Returns the id of a record whose similarity is not finite, or -1.
    int64_t make_room(const float* records, const Kernels& kernels) {
        if (best_.empty() && n_waiting_ > k_) {
            std::nth_element(waiting_.begin(), waiting_.begin() + (k_ - 1), end(),
                             [](const Waiting& a, const Waiting& b) { return a.least > b.least; });
            raise_floor(waiting_[static_cast<size_t>(k_ - 1)].least - 2.0 * error_);
        }
        drop();
        const int64_t half = static_cast<int64_t>(waiting_.size()) / 2;
        return n_waiting_ <= half ? -1 : compare_exactly(half, records, kernels);
    }

    int64_t finish(const float* records, const Kernels& kernels) {
        int64_t fault = make_room(records, kernels);
        if (fault < 0) fault = compare_exactly(0, records, kernels);
        std::sort(best_.begin(), best_.end(), nearer);
        return fault;
    }

private:
    std::vector<Waiting>::iterator end() { return waiting_.begin() + n_waiting_; }

    void raise_floor(double floor) {
        const float rounded = std::nextafter(static_cast<float>(floor), -FLT_MAX);
        floor_ = std::max(floor_, std::max(rounded, -FLT_MAX));
    }

    void drop() {
        n_waiting_ = std::remove_if(waiting_.begin(), end(),
                                    [this](const Waiting& w) { return !(w.most >= floor_); }) -
                     waiting_.begin();
    }

    // Until no more than `allowed` wait: the likeliest k first, as they rule out most of the rest.
    int64_t compare_exactly(int64_t allowed, const float* records, const Kernels& kernels) {
        if (n_waiting_ > k_) {
            std::nth_element(waiting_.begin(), waiting_.begin() + k_, end(),
                             [](const Waiting& a, const Waiting& b) { return a.most > b.most; });
            const int64_t fault = compare_first(k_, records, kernels);
            if (fault >= 0) return fault;
            drop();
        }
        return n_waiting_ > allowed ? compare_first(n_waiting_, records, kernels) : -1;
    }

    int64_t compare_first(int64_t count, const float* records, const Kernels& kernels) {
        ids_.resize(static_cast<size_t>(count));
        similarities_.resize(static_cast<size_t>(count));
        for (size_t c = 0; c < ids_.size(); ++c) ids_[c] = waiting_[c].id;
        kernels.similarities(query_.data(), records, dim_, ids_.data(), count,
                             similarities_.data());
        for (size_t c = 0; c < ids_.size(); ++c) {
            if (!is_finite(similarities_[c])) return ids_[c];
            best_.push_back({similarities_[c], ids_[c]});
        }
        std::copy(waiting_.begin() + count, end(), waiting_.begin());
        n_waiting_ -= count;
        const auto k = static_cast<size_t>(k_);
        if (best_.size() > k) {
            std::nth_element(best_.begin(), best_.begin() + (k_ - 1), best_.end(), nearer);
            best_.resize(k);
        }
        if (best_.size() == k) {
            const auto least = [](const Found& a, const Found& b) {
                return a.similarity < b.similarity;
            };
            const Found& last = *std::min_element(best_.begin(), best_.end(), least);
            raise_floor(last.similarity - error_);
        }
        return -1;
    }

    int64_t k_, dim_ = 0, n_waiting_ = 0;
    double error_ = 0.0;
    float floor_ = -FLT_MAX;
    std::vector<Waiting> waiting_;
    std::vector<double> query_;
    std::vector<Found> best_;  // exact, at most k
    std::vector<int64_t> ids_;
    std::vector<float> similarities_;
};

// Memory of one thread: the queries of one piece in codes, and what is found for each.
struct Room {
    std::vector<int8_t> codes;
    std::vector<float> scales, floors;
    std::vector<int32_t> offsets;
    std::vector<Shortlist> lists;
    std::vector<float> similarities;
};

Room make_room_for(int64_t queries, int64_t steps, int64_t k, int64_t capacity) {
    Room room;
    const auto n = static_cast<size_t>(queries);
    room.codes.resize(n * static_cast<size_t>(kStepValues * steps));
    room.scales.resize(n);
    room.floors.resize(n);
    room.offsets.resize(n);
    room.similarities.resize(kTileQueries * kGroupRecords);
    room.lists.reserve(n);
    for (int64_t i = 0; i < queries; ++i) room.lists.emplace_back(k, capacity);
    return room;
}

// Rounds a row to whole numbers in [-127, 127], followed by zeros up to a whole step; returns the
// scale, 0 if the row is not finite.
float encode(const EncoderKernels& kernels, const float* row, int64_t dim, int8_t* codes) {
    uint8_t* const bytes = reinterpret_cast<uint8_t*>(codes);
    float scale;
    kernels.quantize_rows({row, TokenType::float32, 1, dim, bytes, &scale});
    for (int64_t d = 0; d < kStepValues * code_steps(dim); ++d) {
        codes[d] = d < dim ? static_cast<int8_t>(bytes[d] - kCodeOfZero) : int8_t{0};
    }
    return scale == scale ? scale : 0.0f;
}

// How much codes lose of a row: |row - scale * codes|, |codes| * scale and |row|, rounded up.
struct Loss {
    double error, norm, own_norm;
};

Loss loss_of(const float* row, int64_t dim, float scale, const int8_t* codes) {
    double off = 0.0, coded = 0.0, own = 0.0;
    for (int64_t i = 0; i < dim; ++i) {
        const double value = static_cast<double>(scale) * codes[i], given = row[i];
        off += (given - value) * (given - value);
        coded += value * value;
        own += given * given;
    }
    constexpr double up = 1.0 + 1e-9;
    return {std::sqrt(off) * up, std::sqrt(coded) * up, std::sqrt(own) * up};
}

void begin_query(const Codes& codes, const EncoderKernels& kernels, const float* query, int64_t at,
                 Room& room) {
    const int64_t steps = code_steps(codes.dim);
    int8_t* const own = room.codes.data() + at * kStepValues * steps;
    const auto i = static_cast<size_t>(at);
    room.scales[i] = encode(kernels, query, codes.dim, own);
    int32_t sum = 0;
    for (int64_t d = 0; d < kStepValues * steps; ++d) sum += own[d];
    room.offsets[i] = static_cast<int32_t>(kCodeOfZero) * sum;
    // |q·x - q'·x'| <= |q||x - x'| + |q - q'||x'| (Cauchy-Schwarz); the records' own errors are
    // taken for |q| = 1.
    const Loss loss = loss_of(query, codes.dim, room.scales[i], own);
    const double beyond_one = std::max(0.0, loss.own_norm - 1.0) * codes.largest_error;
    const double most = loss.own_norm * (codes.largest_norm + codes.largest_error);
    double error = loss.error * codes.largest_norm + beyond_one + kRounding * (1.0 + most);
    // Beyond all similarities of rows whose values are not near the end of float32.
    if (!(error < 1e30)) error = 1e30;
    room.lists[i].begin(query, codes.dim, error);
    room.floors[i] = room.lists[i].floor();
}

// Compares queries [0, count) of a room with groups [first, last) of the records.
Fault compare_all(const Codes& codes, const float* records, int64_t first, int64_t last,
                  int64_t count, int64_t first_query, const SearchKernels& kernels,
                  const Kernels& exact, Room& room) {
    const int64_t steps = code_steps(codes.dim), group_bytes = kGroupRecords * kStepValues * steps;
    const int64_t block = std::max<int64_t>(1, kBlockBytes / std::max<int64_t>(1, group_bytes));
    uint64_t passing[kTileQueries];
    for (int64_t from = first; from < last; from += block) {
        const int64_t to = std::min(from + block, last);
        for (int64_t tile = 0; tile < count; tile += kTileQueries) {
            const int some = static_cast<int>(std::min<int64_t>(kTileQueries, count - tile));
            const CodedQueries queries{room.codes.data() + tile * kStepValues * steps,
                                       room.scales.data() + tile, room.offsets.data() + tile,
                                       room.floors.data() + tile};
            for (int64_t group = from; group < to; ++group) {
                const float* const errors = codes.errors + group * kGroupRecords;
                kernels.compare(codes.values + group * group_bytes,
                                codes.scales + group * kGroupRecords, errors, steps, queries, some,
                                room.similarities.data(), passing);
                for (int q = 0; q < some; ++q) {
                    if (passing[q] == 0) continue;
                    Shortlist& list = room.lists[static_cast<size_t>(tile + q)];
                    list.add(group * kGroupRecords, passing[q],
                             room.similarities.data() + q * kGroupRecords, errors);
                    if (!list.is_full()) continue;
                    const int64_t refused = list.make_room(records, exact);
                    if (refused >= 0) {
                        return {FaultKind::similarity, first_query + tile + q, refused};
                    }
                    room.floors[static_cast<size_t>(tile + q)] = list.floor();
                }
            }
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        const int64_t refused = room.lists[static_cast<size_t>(i)].finish(records, exact);
        if (refused >= 0) return {FaultKind::similarity, first_query + i, refused};
    }
    return {};
}

void write_best(const Found* best, int64_t count, int64_t query, const SearchTask& task) {
    for (int64_t j = 0; j < task.k; ++j) {
        const Found none{-std::numeric_limits<float>::infinity(), -1};
        const Found& found = j < count ? best[j] : none;
        task.ids[query * task.k + j] = found.id;
        task.similarities[query * task.k + j] = found.similarity;
    }
}

// Pieces of a search: `queries` at a time, against each of `parts` ranges of the records.
struct Pieces {
    int64_t queries, parts;
    int threads;
};

Pieces cut(int64_t n_queries, int64_t groups, int64_t bytes, int64_t capacity, int asked) {
    if (n_queries * bytes < kInlineBytes) return {std::min(n_queries, kManyQueries), 1, 1};
    const int threads = threads_for(asked, n_queries * groups);
    const int64_t each = (n_queries + threads - 1) / threads;
    if (each < 2 * kTileQueries && threads > 1) {
        return {n_queries, std::min<int64_t>(threads, groups), threads};
    }
    // Shorter where lists are long, so that they take no more memory.
    const int64_t tiles = kManyQueries / kTileQueries * kFewestWaiting / capacity;
    const int64_t most = std::max<int64_t>(1, tiles) * kTileQueries;
    return {std::min(most, (each + kTileQueries - 1) / kTileQueries * kTileQueries), 1, threads};
}

}  // namespace

CodeBounds encode_records(const float* records, int64_t n_records, int64_t dim, uint8_t* values,
                          float* scales, float* errors, Run run) {
    const EncoderKernels& kernels = encoder_kernels(run.simd);
    const int64_t groups = code_groups(n_records), steps = code_steps(dim);
    const int threads = threads_for(n_records * dim < kInlineBytes ? 1 : run.threads, groups);
    std::vector<CodeBounds> bounds(static_cast<size_t>(threads), {0.0, 0.0});
    std::vector<std::vector<int8_t>> rooms(static_cast<size_t>(threads));
    for (auto& room : rooms) room.resize(static_cast<size_t>(kStepValues * steps));
    for_chunks(groups, threads, [&](int64_t group, int thread) -> Fault {
        int8_t* const codes = rooms[static_cast<size_t>(thread)].data();
        CodeBounds& most = bounds[static_cast<size_t>(thread)];
        for (int64_t r = 0; r < kGroupRecords; ++r) {
            const int64_t record = group * kGroupRecords + r;
            const bool there = record < n_records;
            float scale = 0.0f, error = -std::numeric_limits<float>::infinity();
            if (there) {
                const float* const row = records + record * dim;
                scale = encode(kernels, row, dim, codes);
                const Loss loss = loss_of(row, dim, scale, codes);
                error = static_cast<float>(loss.error * (1.0 + 1e-6));
                if (is_finite(error)) {
                    most = {std::max(most.norm, loss.norm),
                            std::max(most.error, static_cast<double>(error))};
                } else {
                    error = std::numeric_limits<float>::infinity();
                }
            } else {
                std::fill(codes, codes + kStepValues * steps, int8_t{0});
            }
            scales[record] = scale;
            errors[record] = error;
            uint8_t* const to = values + (group * steps * kGroupRecords + r) * kStepValues;
            for (int64_t s = 0; s < steps; ++s) {
                for (int64_t v = 0; v < kStepValues; ++v) {
                    to[s * kGroupRecords * kStepValues + v] =
                        static_cast<uint8_t>(codes[s * kStepValues + v] + kCodeOfZero);
                }
            }
        }
        return {};
    });
    CodeBounds all{0.0, 0.0};
    for (const CodeBounds& some : bounds) {
        all = {std::max(all.norm, some.norm), std::max(all.error, some.error)};
    }
    return all;
}

Fault rank(const int64_t* candidates, int64_t columns, const SearchTask& task, Run run) {
    struct Room {
        std::vector<double> query;
        std::vector<int64_t> ids;
        std::vector<float> similarities;
        std::vector<Found> found;
    };
    const Kernels& kernels = kernels_of(run.simd);
    const int64_t n_queries = task.n_queries, dim = task.dim;
    const bool small = n_queries * columns * dim < kInlineProducts;
    const int64_t step = small ? std::max<int64_t>(n_queries, 1)
                               : std::max<int64_t>(1, std::min<int64_t>(64, n_queries / 8));
    const int64_t chunks = (n_queries + step - 1) / step;
    const int threads = threads_for(run.threads, chunks);
    std::vector<Room> rooms(static_cast<size_t>(threads));
    for (Room& room : rooms) {
        room.query.assign(static_cast<size_t>((dim + 15) / 16 * 16), 0.0);
        room.ids.resize(static_cast<size_t>(columns));
        room.similarities.resize(static_cast<size_t>(columns));
        room.found.resize(static_cast<size_t>(columns));
    }
    return for_chunks(chunks, threads, [&](int64_t chunk, int thread) -> Fault {
        Room& room = rooms[static_cast<size_t>(thread)];
        for (int64_t i = chunk * step; i < std::min((chunk + 1) * step, n_queries); ++i) {
            int64_t count = 0;
            for (int64_t j = 0; j < columns; ++j) {
                const int64_t id = candidates[i * columns + j];
                if (id < -1 || id >= task.n_records) return {FaultKind::id, i, j};
                if (id >= 0) room.ids[static_cast<size_t>(count++)] = id;
            }
            std::copy(task.queries + i * dim, task.queries + (i + 1) * dim, room.query.begin());
            kernels.similarities(room.query.data(), task.records, dim, room.ids.data(), count,
                                 room.similarities.data());
            for (size_t c = 0; c < static_cast<size_t>(count); ++c) {
                room.found[c] = {room.similarities[c], room.ids[c]};
                if (!is_finite(room.similarities[c]))
                    return {FaultKind::similarity, i, room.ids[c]};
            }
            const int64_t kept = std::min(task.k, count);
            const auto begin = room.found.begin(), end = begin + count;
            kept < count ? std::partial_sort(begin, begin + kept, end, nearer)
                         : std::sort(begin, end, nearer);
            write_best(room.found.data(), kept, i, task);
        }
        return {};
    });
}

Fault search(const Codes& codes, const SearchTask& task, Run run) {
    const SearchKernels& kernels = search_kernels(run.simd);
    const EncoderKernels& encoders = encoder_kernels(run.simd);
    const Kernels& exact = kernels_of(run.simd);
    const int64_t steps = code_steps(task.dim), groups = code_groups(task.n_records);
    const int64_t n_queries = task.n_queries, kept = std::min(task.k, task.n_records);
    const int64_t capacity = std::max(kFewestWaiting, 4 * kept + kGroupRecords);
    const Pieces pieces =
        cut(n_queries, groups, groups * kGroupRecords * kStepValues * steps, capacity, run.threads);
    const int64_t n_pieces =
        pieces.queries > 0 ? (n_queries + pieces.queries - 1) / pieces.queries : 0;
    std::vector<Room> rooms(static_cast<size_t>(pieces.threads));
    std::vector<std::vector<Found>> partial(
        pieces.parts > 1 ? static_cast<size_t>(pieces.parts * n_queries) : 0);
    const auto piece = [&](int64_t chunk, int thread) -> Fault {
        Room& room = rooms[static_cast<size_t>(thread)];
        if (room.lists.empty()) room = make_room_for(pieces.queries, steps, kept, capacity);
        const int64_t begin = chunk / pieces.parts * pieces.queries, part = chunk % pieces.parts;
        const int64_t count = std::min(pieces.queries, n_queries - begin);
        for (int64_t i = 0; i < count; ++i) {
            begin_query(codes, encoders, task.queries + (begin + i) * task.dim, i, room);
        }
        const Fault fault =
            compare_all(codes, task.records, groups * part / pieces.parts,
                        groups * (part + 1) / pieces.parts, count, begin, kernels, exact, room);
        for (int64_t i = 0; i < count && !fault; ++i) {
            const std::vector<Found>& best = room.lists[static_cast<size_t>(i)].best();
            if (pieces.parts == 1) {
                write_best(best.data(), static_cast<int64_t>(best.size()), begin + i, task);
            } else {
                partial[static_cast<size_t>(part * n_queries + begin + i)] = best;
            }
        }
        return fault;
    };
    const Fault fault = for_chunks(n_pieces * pieces.parts, pieces.threads, piece);
    if (fault || pieces.parts == 1) return fault;
    for (int64_t i = 0; i < n_queries; ++i) {
        std::vector<Found> all;
        for (int64_t part = 0; part < pieces.parts; ++part) {
            const auto& some = partial[static_cast<size_t>(part * n_queries + i)];
            all.insert(all.end(), some.begin(), some.end());
        }
        std::sort(all.begin(), all.end(), nearer);
        write_best(all.data(), static_cast<int64_t>(all.size()), i, task);
    }
    return {};
}

}  // namespace benchrouter
