"""The method's formulas on examples that can be checked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrouter.scores import formulas

NAN = float("nan")


def test_dataset_means_leave_missing_out():
    values = np.array([[1, 0], [0, NAN], [1, NAN], [1, NAN]], dtype=np.float32)
    means = formulas.dataset_means(values, np.array([0, 0, 1, 1], dtype=np.int32), 2)
    np.testing.assert_array_equal(means, [[0.5, 0.0], [1.0, NAN]])


def test_standing_is_the_macro_average_when_nothing_is_missing():
    means = np.array([[0.2, 0.4], [0.6, 0.4], [1.0, 0.1]])
    np.testing.assert_allclose(formulas.standing(means), [0.6, 0.3], rtol=0, atol=1e-15)


def test_a_model_that_ran_only_easy_datasets_gains_nothing():
    # Model 1 is 0.1 better than model 0 on every dataset, but was only run on the easy one.
    means = np.array([[0.9, 1.0], [0.1, NAN], [0.2, NAN]])
    np.testing.assert_allclose(formulas.standing(means), [0.4, 0.5], rtol=0, atol=1e-12)


@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_standing_recovers_an_additive_table(n_datasets, n_models, seed):
    rng = np.random.default_rng(seed)
    full = rng.random((n_datasets, 1)) + rng.random((1, n_models))
    means = full.copy()
    hidden = rng.random(means.shape) < 0.3
    hidden[0], hidden[:, 0] = False, False  # keeps every model comparable
    means[hidden] = NAN
    np.testing.assert_allclose(formulas.standing(means), full.mean(axis=0), rtol=0, atol=1e-9)


def test_standing_needs_a_score_of_every_model_and_dataset():
    with pytest.raises(ValueError, match=r"models \[1\] have no score on any dataset"):
        formulas.standing(np.array([[0.5, NAN]]))
    with pytest.raises(ValueError, match=r"datasets \[1\] have no score of any model"):
        formulas.standing(np.array([[0.5], [NAN]]))


def test_ties_go_to_lower_cost_then_fewer_parameters_then_table_order():
    cost = np.array([NAN, 2.0, 1.0, 1.0, 1.0])
    params = np.array([1.0, 1.0, NAN, 7.0, 7.0])
    unpriced = np.full((5, 2), NAN)
    preferred = formulas.preference(cost, unpriced, params)
    np.testing.assert_array_equal(preferred, [4, 3, 2, 0, 1])
    assert formulas.best_model(np.full(5, 0.5), preferred) == 3


def test_listed_prices_decide_where_no_cost_was_recorded():
    prices = np.array([[2.0, 2.0], [1.0, 4.0], [0.5, 0.6]])
    unknown = np.full(3, NAN)
    np.testing.assert_array_equal(formulas.preference(unknown, prices, unknown), [1, 2, 0])
    recorded = np.array([NAN, 0.1, NAN])
    np.testing.assert_array_equal(formulas.preference(recorded, prices, unknown), [1, 0, 2])


def test_a_task_breaks_ties_by_s1_first_and_nan_never_wins():
    preferred = np.array([0, 1, 2], dtype=np.int32)
    score = np.array([0.5, 0.5, NAN])
    assert formulas.best_model(score, preferred) == 0
    assert formulas.best_model(score, preferred, np.array([0.1, 0.2, 0.9])) == 1
    with pytest.raises(ValueError, match="every value is NaN"):
        formulas.best_model(np.array([NAN]), preferred[:1])


def test_only_a_model_with_every_dataset_is_best_on_average():
    means = np.array([[0.4, 0.9, 0.5], [0.4, NAN, 0.5]])
    preferred = np.array([0, 1, 2], dtype=np.int32)
    assert formulas.best_on_average(means, preferred) == 2
    means[1, 2] = NAN
    assert formulas.best_on_average(means, preferred) == 0


def test_distance_floors_and_averages():
    similarities = np.array([[1.0, 0.5], [0.0, -np.inf]], dtype=np.float32)
    np.testing.assert_allclose(
        formulas.prompt_distances(similarities), [(1e-7 + 0.5) / 2, 1.0], rtol=1e-12
    )
    assert formulas.task_distance(similarities) == pytest.approx((0.25 + 5e-8 + 1.0) / 2)
    with pytest.raises(ValueError, match="at least one prompt"):
        formulas.task_distance(np.empty((0, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="without any neighbour"):
        formulas.task_distance(np.full((1, 2), -np.inf, dtype=np.float32))


def test_s3_by_hand():
    # The predictor calls 3 of 4 right and is itself right in 9 of 10 cases.
    np.testing.assert_allclose(formulas.s3(np.array([0.75]), np.array([0.9])), [0.7])
    np.testing.assert_allclose(formulas.s3(np.array([0.75]), np.array([0.5])), [0.5])


def test_smoother_by_hand():
    pair_u, pair_p = np.array([0.0, 0.18]), np.array([[0.8, 0.4], [0.6, NAN]])
    weight = math.exp(-(0.18**2) / (2 * 0.09**2))
    smoothed = formulas.smooth(np.array([0.0]), pair_u, pair_p)
    expected = (0.8 + 0.6 * weight) / (1 + weight)
    np.testing.assert_allclose(smoothed, [[expected, 0.4]], rtol=1e-12)
    # Halfway the two pairs weigh the same; far away the nearest decides, without 0/0.
    complete = np.array([[0.8], [0.6]])
    np.testing.assert_allclose(formulas.smooth(np.array([0.09]), pair_u, complete), [[0.7]])
    np.testing.assert_allclose(formulas.smooth(np.array([50.0]), pair_u, complete), [[0.6]])
    assert np.isnan(formulas.smooth(np.array([0.0]), pair_u, np.full((2, 1), NAN))).all()


def test_smoother_of_many_points_equals_one_at_a_time():
    rng = np.random.default_rng(0)
    u, pair_u, pair_p = rng.random(600), rng.random(40), rng.random((40, 3))
    together = formulas.smooth(u, pair_u, pair_p)
    alone = np.concatenate([formulas.smooth(u[i : i + 1], pair_u, pair_p) for i in range(len(u))])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def brute_probability(s2, p, n):
    """Enumerate every outcome of every prompt of both models."""

    def law(hits, chance):
        chances = [chance] * hits + [1 - chance] * (n - hits)
        out = np.zeros(n + 1)
        for outcome in itertools.product((0, 1), repeat=n):
            weight = math.prod(c if o else 1 - c for c, o in zip(chances, outcome, strict=True))
            out[sum(outcome)] += weight
        return out

    a, b = (law(round(s * n), c) for s, c in zip(s2, p, strict=True))
    return sum(a[i] * b[j] for i in range(n + 1) for j in range(i))


@pytest.mark.parametrize("p", [(0.7, 0.6), (0.5, 0.5), (1.0, 0.2), (0.0, 0.3)])
def test_probability_is_the_enumerated_one(p):
    s2 = (0.75, 0.25)
    exact = formulas.probability_better(s2, p, 4)
    assert exact == pytest.approx(brute_probability(s2, p, 4), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "p", "known"),
    [
        (4097, (1.0, 0.9999), 1 - 0.9999**4097),  # b misses at least once
        (20_000, (1.0, 0.9999), 1 - 0.9999**20_000),
        (1_000_000, (1.0, 1.0 - 1e-7), 1 - (1 - 1e-7) ** 1_000_000),
    ],
)
def test_probability_of_rare_mistakes(n, p, known):
    assert formulas.probability_better((1.0, 1.0), p, n) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("n", [1, 20, 500, 4097, 100_000])
def test_probability_agrees_with_the_papers_draws(n):
    for s2, p in [((0.6, 0.55), (0.7, 0.68)), ((0.5, 0.5), (0.6, 0.6)), ((0.31, 0.3), (0.9, 0.9))]:
        exact = formulas.probability_better(s2, p, n)
        drawn = formulas.probability_better(s2, p, n, method="draws", draws=40_000, seed=1)
        assert abs(exact - drawn) < 0.012  # 4.8 standard deviations of the draws


def test_probability_is_strict_and_knows_its_methods():
    assert formulas.probability_better((1.0, 1.0), (1.0, 1.0), 10) == 0.0
    assert formulas.probability_better((1.0, 1.0), (1.0, 1.0), 10_000) == 0.0
    assert formulas.probability_better((1.0, 0.0), (1.0, 1.0), 10_000) == 1.0
    assert 0 < formulas.probability_better((0.6, 0.6), (0.7, 0.7), 9) < 0.5
    with pytest.raises(ValueError, match="'exact' or 'draws', got 'guess'"):
        formulas.probability_better((1, 1), (1, 1), 1, method="guess")


def test_label_informed_p_by_hand():
    g_bar = np.array([[True, True], [False, True], [True, False]])
    labels = np.array([[1.0, 0.0], [0.0, NAN], [0.0, NAN]])
    measured = formulas.label_informed_p(np.array([0.5, 0.5]), g_bar, labels, tau=2.0)
    np.testing.assert_allclose(measured, [(1 + 2) / 5, (1 + 0) / 3])


def test_tau_follows_the_spread_of_p():
    rng = np.random.default_rng(0)
    p_hat = np.full((400, 5), 0.7)
    for tau in (4.0, 20.0, 100.0):
        p = rng.beta(tau * 0.7, tau * 0.3, p_hat.shape)
        n = np.full(400, 500)
        measured = rng.binomial(500, p) / 500
        found = formulas.prior_weight_of_p(measured, p_hat, n)
        assert tau * 0.8 < found < tau * 1.25
    assert formulas.prior_weight_of_p(p_hat, p_hat, n) == 1000.0
    assert formulas.prior_weight_of_p(np.full((2, 1), NAN), np.full((2, 1), 0.5), n[:2]) == 1.0
