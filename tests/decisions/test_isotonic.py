"""The chance of success behind a score: isotonic regression, and its held-out pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router, Settings
from benchrouter.decisions.costs.isotonic import isotonic
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import Policy
from benchrouter.scores import held_out

NAN = float("nan")


def test_by_hand():
    found = isotonic(np.array([0.1, 0.1, 0.5, 0.5, 0.9, NAN]), np.array([0, 1, 0, 0, 1, 1.0]))
    # 0.1 comes true in 1 of 2, 0.5 in 0 of 2: pooled, 1 of 4.
    assert_array_equal(found.score, [0.1, 0.5, 0.9])
    assert_array_equal(found.chance, [0.25, 0.25, 1.0])
    assert_allclose(found(np.array([[-1.0, 0.3], [0.7, 2.0]])), [[0.25, 0.25], [0.625, 1.0]])
    assert np.isnan(found(np.array([NAN]))).all()
    with pytest.raises(ValueError, match="none of 1 predictions has an outcome"):
        isotonic(np.array([0.5]), np.array([NAN]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_equals_a_maximin_formula(seed, n):
    """Isotonic regression is max over i ≤ j of min over k ≥ j of the mean from i to k."""
    rng = np.random.default_rng(seed)
    predicted, observed = rng.permutation(n) / n, (rng.random(n) < 0.5).astype(float)
    found = isotonic(predicted, observed)
    y = observed[np.argsort(predicted)]
    expected = [
        max(min(y[i : k + 1].mean() for k in range(j, n)) for i in range(j + 1)) for j in range(n)
    ]
    assert_allclose(found.chance, expected, atol=1e-12)


def test_bins_are_large_where_pairs_are_many():
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    found = isotonic(predicted, (rng.random(20_000) < predicted**2).astype(np.float32))
    assert len(found.score) == 50
    assert (np.diff(found.chance) >= 0).all()
    grid = np.linspace(0.05, 0.95, 19)
    assert_allclose(found(grid), grid**2, atol=0.04)


@pytest.fixture(scope="module")
def benchmark():
    """Ninety records, two of them the same prompt as others, some scores missing."""
    rng = np.random.default_rng(0)
    rows = unit_rows(90, 4)
    rows[[7, 50]] = rows[[3, 4]]
    scores = (rng.random((90, 3)) < [0.3, 0.5, 0.7]).astype(float)
    scores[rng.random(scores.shape) < 0.2] = NAN
    table = make_table(scores, np.arange(90) % 3, cost_usd=np.full((90, 3), 0.1, np.float32))
    return table, rows, Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,)))


def likely(router):
    """What a policy that asks for chances by the rule "mean" comes to."""
    return plan_of(router._fit, Policy(rule="mean", min_success=0.5))


def test_records_are_predicted_from_all_others(benchmark):
    table, rows, router = benchmark
    similarities = (rows.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32)
    prior = router._fit.raw_prior
    expected = []
    for i in range(90):
        others = [e for e in range(90) if e != i and similarities[i, e] < 1 - 1e-6]
        near = sorted(others, key=lambda e: (-similarities[i, e], e))[:5]
        for m in range(3):
            known = [table.scores[e, m] for e in near if not np.isnan(table.scores[e, m])]
            expected.append((sum(known) + prior[m]) / (len(known) + 1))
    predicted, observed = router.decider.calibrations.held_out_pairs(likely(router))
    assert_allclose(predicted, expected, atol=1e-6)
    assert_array_equal(observed, table.scores.ravel())


def test_a_large_benchmark_calibrates_on_a_sample_of_every_dataset(benchmark, monkeypatch):
    table, rows, _ = benchmark
    monkeypatch.setattr(held_out, "ALL_RECORDS", 89)
    monkeypatch.setattr(held_out, "SAMPLE", 10)
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,)))
    chosen = router.decider.calibrations.sample()
    assert (np.diff(chosen) > 0).all()
    assert_array_equal(np.bincount(table.dataset[chosen]), [10, 10, 10])
    assert len(router.decider.calibrations.held_out_pairs(likely(router))[0]) == 30 * 3


def test_a_chance_that_is_promised_comes_true():
    """Of fresh prompts of the same kinds, on average so many are answered as is promised."""
    rng = np.random.default_rng(1)
    kinds = np.eye(8, dtype=np.float32)
    chance = rng.uniform(0.1, 0.95, (8, 3))

    def draw(n):
        kind = rng.integers(0, 8, n)
        rows = kinds[kind] + 0.1 * rng.standard_normal((n, 8))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return kind, rows.astype(np.float32), rng.random((n, 3)) < chance[kind]

    kind, rows, right = draw(1500)
    cost = np.tile(np.array([0.1, 0.2, 0.4], np.float32), (1500, 1))
    table = make_table(right, kind, cost_usd=cost)
    router = Router.fit(table, embeddings=rows, settings=Settings(k=20, label_shares=(0.0,)))
    _, rows, right = draw(4000)
    calibration = router.decider.calibrations.of(likely(router))
    found = router.route(embeddings=rows, policy=CostPolicy(min_success=0.6))
    promised = calibration(found.score)
    sure = ~found.fallback & (promised > 0.6)
    assert sure.sum() > 1000 and (~sure).sum() > 100
    reached = right[np.arange(4000), found.model][sure].mean()
    assert reached == pytest.approx(promised[sure].mean(), abs=0.06)
    assert found.cost_usd[sure].mean() < 0.3  # not always the dearest


def test_without_thresholds_there_is_no_chance(benchmark):
    table, rows, _ = benchmark
    bare = make_table(
        table.scores * 3, table.dataset, cost_usd=table.cost_usd, thresholds=np.full(3, NAN)
    )
    router = Router.fit(bare, embeddings=rows, settings=Settings(label_shares=(0.0,)))
    with pytest.raises(ValueError, match=r"min_success needs to know what is correct.*threshold"):
        router.route(embeddings=rows, policy=CostPolicy(min_success=0.5))
    assert len(router.route(embeddings=rows, policy=CostPolicy(within=0.5))) == 90
