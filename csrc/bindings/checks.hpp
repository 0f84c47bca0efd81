// Checks of single values, the same for the CPU and for a device.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"

namespace benchrouter {

inline int64_t checked_columns(const char* name, int64_t found, int64_t columns, int64_t largest) {
    if (found < 0 || found > columns) {
        refuse_value(std::string(name) + " must be between 0 and the " + std::to_string(columns) +
                     " columns of neighbours, got " + std::to_string(found));
    }
    if (found > largest) {
        refuse_value(std::string(name) + " must be at most " + std::to_string(largest) + ", got " +
                     std::to_string(found));
    }
    return found;
}

// Models of packed outcomes; refuses bits of another number of words.
inline void check_words(int64_t n_models, int64_t words) {
    if (n_models < 0) refuse_value("n_models must be 0 or more, got " + std::to_string(n_models));
    expect_length("bits", "words a row", words, std::to_string(n_models) + " models need",
                  n_models / 64 + (n_models % 64 != 0));
}

inline void check_prior_weight(double prior_weight) {
    if (!(prior_weight >= 0.0) || !std::isfinite(prior_weight)) {
        refuse_value("prior_weight must be finite and at least 0, got " + number(prior_weight));
    }
}

inline void check_grid(int64_t rows, int64_t columns, double start, double step, int64_t models) {
    expect_length("p_table", "columns", columns, "outcomes has models:", models);
    if (rows < 1) refuse_value("p_table must have at least 1 row, got 0");
    if (!std::isfinite(start)) refuse_value("p_start must be finite, got " + number(start));
    if (!(step > 0.0) || !std::isfinite(step)) {
        refuse_value("p_step must be finite and above 0, got " + number(step));
    }
}

inline void check_threshold(double threshold) {
    if (!std::isfinite(threshold))
        refuse_value("threshold must be finite, got " + number(threshold));
}

// The numbers of a decision; returns whether the rule is "s3".
inline bool check_decision(const std::string& rule, bool has_p_table, double threshold,
                           double distance_limit, int64_t fallback_model, int64_t models) {
    if (rule != "mean" && rule != "s3")
        refuse_value("rule must be 'mean' or 's3', got '" + rule + "'");
    const bool is_s3 = rule == "s3";
    if (!is_s3 && has_p_table) refuse_value("p_table is for rule 's3', got it with rule 'mean'");
    check_threshold(threshold);
    if (std::isnan(distance_limit)) refuse_value("distance_limit must be a number, got nan");
    if (fallback_model < 0 || fallback_model >= models) {
        refuse_value("fallback_model must be in [0, " + std::to_string(models) + "), got " +
                     std::to_string(fallback_model));
    }
    return is_s3;
}

// Models by ascending preference number; refuses what is not a permutation.
inline std::vector<int64_t> checked_order(const View<const int32_t, 1>& preference) {
    const int64_t models = preference.shape[0];
    std::vector<int64_t> order(static_cast<size_t>(models), -1);
    for (int64_t m = 0; m < models; ++m) {
        const int64_t place = preference.data[m];
        const bool known = place >= 0 && place < models;
        if (!known || order[static_cast<size_t>(place)] >= 0) {
            refuse_value("preference must hold each of 0 to " + std::to_string(models - 1) +
                         " once, got " + std::to_string(place) + (known ? " again" : "") + at(m));
        }
        order[static_cast<size_t>(place)] = m;
    }
    return order;
}

// The number of models that may be chosen; refuses where there is none, or where the fallback model
// or the best on average (-1: there is no such) is not one.
inline int64_t checked_allowed(const View<const bool, 1>& allowed, int64_t fallback_model,
                               int64_t home) {
    int64_t count = 0;
    for (int64_t m = 0; m < allowed.shape[0]; ++m) count += allowed.data[m];
    if (count == 0) refuse_value("allowed must hold at least 1 model, got none");
    if (!allowed.data[fallback_model]) {
        refuse_value("fallback_model must be a model allowed, got " +
                     std::to_string(fallback_model));
    }
    if (home >= 0 && !allowed.data[home])
        refuse_value("home must be a model allowed, got " + std::to_string(home));
    return count;
}

}  // namespace benchrouter
