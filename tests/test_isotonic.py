"""The chance of success behind a score: isotonic regression, and its held-out pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from benchrouter.calibration import isotonic

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
