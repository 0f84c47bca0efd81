// Sums of held-out cells: queries are shared among threads, each with sums of its own.
#include "scores/cells.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/threads.hpp"
#include "votes/vote.hpp"

namespace benchrouter {
namespace {

constexpr int64_t kChunkQueries = 16;

// NaN is none.
bool is_similarity(float value) {
    return std::abs(value) <= kMostSimilarity;
}

struct Neighbour {
    float similarity;
    int32_t code;
    int64_t id;
    double distance;
};

bool nearer(const Neighbour& a, const Neighbour& b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.id < b.id);
}

// What one list of neighbours says of one query, per model.
struct Tally {
    explicit Tally(int64_t models)
        : s1(models), s2(models), right(models), unsupported(models), known(models), one(models) {}
    std::vector<float> s1;
    std::vector<int32_t> s2, right, unsupported, known, one;
    int64_t distance = 0;
};

struct Sums {
    std::vector<int64_t> distance;
    std::vector<double> s1;
    std::vector<int32_t> s2, right, unsupported, known, one;

    void resize(int64_t lists, int64_t models) {
        distance.assign(static_cast<size_t>(lists), 0);
        s1.assign(static_cast<size_t>(lists * models), 0.0);
        for (auto* sums : {&s2, &right, &unsupported, &known, &one})
            sums->assign(static_cast<size_t>(lists * models), 0);
    }

    void add(int64_t list, const Tally& tally) {
        const int64_t models = static_cast<int64_t>(tally.s1.size()), at = list * models;
        for (int64_t m = 0; m < models; ++m) {
            s1[at + m] += static_cast<double>(tally.s1[m]);
            s2[at + m] += tally.s2[m];
            right[at + m] += tally.right[m];
            unsupported[at + m] += tally.unsupported[m];
            known[at + m] += tally.known[m];
            one[at + m] += tally.one[m];
        }
    }

    // A float32 vote of at most k neighbours is 0 or at least 1/k: such sums, and what is taken
    // from them, are exact in float64 up to 2^29 / k queries.
    void add_change(int64_t list, const Tally& now, const Tally& before) {
        const int64_t models = static_cast<int64_t>(now.s1.size()), at = list * models;
        for (int64_t m = 0; m < models; ++m) {
            s1[at + m] += static_cast<double>(now.s1[m]) - static_cast<double>(before.s1[m]);
            s2[at + m] += now.s2[m] - before.s2[m];
            right[at + m] += now.right[m] - before.right[m];
            unsupported[at + m] += now.unsupported[m] - before.unsupported[m];
            known[at + m] += now.known[m] - before.known[m];
            one[at + m] += now.one[m] - before.one[m];
        }
    }
};

template <class T>
void add_all(const std::vector<T>& from, T* to) {
    for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

class Worker {
public:
    Worker(const HeldOutLists& lists, const Moves& moves, const CellSettings& settings)
        : lists_(lists),
          moves_(moves),
          settings_(settings),
          depth_(std::max(settings.k, settings.kappa)),
          own_depth_(std::min(depth_, lists.own_columns)),
          exclusions_(exclusions_of(settings)),
          own_(static_cast<size_t>(moves.n_cells * own_depth_)),
          n_own_(static_cast<size_t>(moves.n_cells)),
          is_moved_(static_cast<size_t>(moves.n_cells)),
          others_(static_cast<size_t>(lists.columns)),
          seen_(static_cast<size_t>(settings.n_datasets)),
          base_(settings.models),
          changed_(settings.models),
          correct_(static_cast<size_t>(settings.models)),
          support_(static_cast<size_t>(settings.models)) {
        pool_.reserve(static_cast<size_t>(std::min(2 * depth_, lists.columns + own_depth_)));
        sums.resize(moves.n_cells * exclusions_, settings.models);
    }

    Sums sums;

    Fault query(int64_t i) {
        if (const Fault fault = read_lists(i)) return fault;
        const float* const y =
            settings_.correctness + moves_.records[lists_.first + i] * settings_.models;
        for (int64_t c = 0; c < moves_.n_cells; ++c) {
            if (is_moved_[static_cast<size_t>(c)]) continue;
            merge(c);
            tally(-1, y, base_);
            base_.distance = distance(-1);
            sums.distance[static_cast<size_t>(c * exclusions_)] += base_.distance;
            sums.add(c * exclusions_, base_);
            if (settings_.each) leave_out_each(c, y);
        }
        return {};
    }

    // Exclusions so far hold only what they change: add what they have in common.
    void complete() {
        const int64_t models = settings_.models;
        const auto spread = [&](auto& values, int64_t width) {
            for (int64_t c = 0; c < moves_.n_cells; ++c) {
                const int64_t from = c * exclusions_ * width;
                for (int64_t j = width; j < exclusions_ * width; ++j)
                    values[from + j] += values[from + j % width];
            }
        };
        spread(sums.distance, 1);
        spread(sums.s1, models);
        for (auto* values : {&sums.s2, &sums.right, &sums.unsupported, &sums.known, &sums.one})
            spread(*values, models);
    }

private:
    // The query's neighbours in other datasets, and for every cell its moved ones of its own.
    Fault read_lists(int64_t i) {
        n_others_ = 0;
        for (int64_t j = 0; j < lists_.columns; ++j) {
            const int64_t id = lists_.ids[i * lists_.columns + j];
            if (id == -1) continue;
            if (id < -1 || id >= settings_.records) return {FaultKind::id, i, j};
            const float similarity = lists_.similarities[i * lists_.columns + j];
            if (!is_similarity(similarity)) return {FaultKind::similarity, i, j};
            others_[static_cast<size_t>(n_others_++)] = {similarity, settings_.dataset[id], id,
                                                         benchrouter::distance(similarity)};
        }
        std::fill(n_own_.begin(), n_own_.end(), 0);
        std::fill(is_moved_.begin(), is_moved_.end(), false);
        const int64_t place = lists_.first + i;
        for (int64_t j = moves_.offsets[place]; j < moves_.offsets[place + 1]; ++j)
            is_moved_[static_cast<size_t>(moves_.cells[j])] = true;
        for (int64_t j = 0; j < lists_.own_columns; ++j) {
            const int64_t other = lists_.own_places[i * lists_.own_columns + j];
            if (other == -1) continue;
            if (other < -1 || other >= moves_.places) return {FaultKind::place, i, j};
            const float similarity = lists_.own_similarities[i * lists_.own_columns + j];
            if (!is_similarity(similarity)) return {FaultKind::similarity, i, lists_.columns + j};
            const int64_t id = moves_.records[other];
            const Neighbour neighbour{similarity, settings_.dataset[id], id,
                                      benchrouter::distance(similarity)};
            for (int64_t s = moves_.offsets[other]; s < moves_.offsets[other + 1]; ++s) {
                const int64_t c = moves_.cells[s];
                int64_t& count = n_own_[static_cast<size_t>(c)];
                if (count < own_depth_)
                    own_[static_cast<size_t>(c * own_depth_ + count++)] = neighbour;
            }
        }
        return {};
    }

    // The nearest of both lists; twice the depth outlasts the loss of any one dataset, as the list
    // of others holds at most `depth` of each.
    void merge(int64_t c) {
        const int64_t wanted = settings_.each ? 2 * depth_ : depth_;
        const Neighbour* own = own_.data() + c * own_depth_;
        const Neighbour* const own_end = own + n_own_[static_cast<size_t>(c)];
        const Neighbour* other = others_.data();
        const Neighbour* const other_end = other + n_others_;
        pool_.clear();
        while (static_cast<int64_t>(pool_.size()) < wanted &&
               (own < own_end || other < other_end)) {
            const bool take_own = other == other_end || (own < own_end && nearer(*own, *other));
            pool_.push_back(take_own ? *own++ : *other++);
        }
    }

    // Mean distance to the first kappa of the pool without dataset `without`; 0 = none is left.
    int64_t distance(int32_t without) const {
        double sum = 0.0;
        int64_t count = 0;
        for (const Neighbour& neighbour : pool_) {
            if (count == settings_.kappa) break;
            if (neighbour.code == without) continue;
            sum = add(sum, neighbour.distance);
            ++count;
        }
        return count ? static_cast<int64_t>(sum / static_cast<double>(count) * kDistanceUnit + 0.5)
                     : 0;
    }

    void tally(int32_t without, const float* y, Tally& out) {
        const int64_t models = settings_.models;
        int32_t* const correct = correct_.data();
        int32_t* const support = support_.data();
        std::fill(correct, correct + models, 0);
        std::fill(support, support + models, 0);
        int64_t count = 0;
        for (const Neighbour& neighbour : pool_) {
            if (count == settings_.k) break;
            if (neighbour.code == without) continue;
            const float* const row = settings_.correctness + neighbour.id * models;
            for (int64_t m = 0; m < models; ++m) {
                correct[m] += row[m] > 0.5f;
                support[m] += row[m] == row[m];
            }
            ++count;
        }
        for (int64_t m = 0; m < models; ++m) {
            const float vote = vote_of_counts(correct[m], support[m], 0.0f);
            const int32_t some = support[m] > 0, known = y[m] == y[m], one = y[m] > 0.5f;
            const int32_t verdict = some & (vote > settings_.threshold);
            out.s1[m] = vote;
            out.s2[m] = verdict;
            out.right[m] = some & known & (verdict == one);
            out.unsupported[m] = 1 - some;
            out.known[m] = (1 - some) & known;
            out.one[m] = (1 - some) & one;
        }
    }

    // Only datasets among the first neighbours change anything when they are left out.
    void leave_out_each(int64_t c, const float* y) {
        ++stamp_;
        const int64_t n = std::min<int64_t>(depth_, static_cast<int64_t>(pool_.size()));
        for (int64_t j = 0; j < n; ++j) {
            const int32_t code = pool_[static_cast<size_t>(j)].code;
            int64_t& seen = seen_[static_cast<size_t>(code)];
            if (seen == stamp_ || code == own_code()) continue;
            seen = stamp_;
            const int64_t list = c * exclusions_ + 1 + code;
            if (j < settings_.kappa)
                sums.distance[static_cast<size_t>(list)] += distance(code) - base_.distance;
            if (j < settings_.k) {
                tally(code, y, changed_);
                sums.add_change(list, changed_, base_);
            }
        }
    }

    int32_t own_code() const { return settings_.dataset[moves_.records[lists_.first]]; }

    const HeldOutLists& lists_;
    const Moves& moves_;
    const CellSettings& settings_;
    const int64_t depth_, own_depth_, exclusions_;
    std::vector<Neighbour> own_;  // (cells, depth)
    std::vector<int64_t> n_own_;
    std::vector<char> is_moved_;
    std::vector<Neighbour> others_, pool_;
    int64_t n_others_ = 0;
    std::vector<int64_t> seen_;
    int64_t stamp_ = 0;
    Tally base_, changed_;
    std::vector<int32_t> correct_, support_;
};

}  // namespace

Fault cells(const HeldOutLists& lists, const Moves& moves, const CellSettings& settings,
            const CellSums& out, int threads) {
    const int64_t chunks = (lists.queries + kChunkQueries - 1) / kChunkQueries;
    const int wanted = threads_for(threads, chunks);
    std::vector<Worker> workers;
    workers.reserve(static_cast<size_t>(wanted));
    for (int t = 0; t < wanted; ++t) workers.emplace_back(lists, moves, settings);
    const Fault fault = for_chunks(chunks, wanted, [&](int64_t chunk, int thread) -> Fault {
        const int64_t end = std::min((chunk + 1) * kChunkQueries, lists.queries);
        for (int64_t i = chunk * kChunkQueries; i < end; ++i) {
            if (const Fault found = workers[static_cast<size_t>(thread)].query(i)) return found;
        }
        return {};
    });
    if (fault) return fault;
    for (Worker& worker : workers) {
        worker.complete();
        add_all(worker.sums.distance, out.distance);
        add_all(worker.sums.s1, out.s1);
        add_all(worker.sums.s2, out.s2);
        add_all(worker.sums.right, out.right);
        add_all(worker.sums.unsupported, out.unsupported);
        add_all(worker.sums.known, out.of_known);
        add_all(worker.sums.one, out.of_correct);
    }
    return {};
}

}  // namespace benchrouter
