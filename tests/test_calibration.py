"""Reliability curves and ECE by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from prompt_results import make_results

from benchrouter.evaluation.prompts.calibration import reliabilities, reliability

NAN = float("nan")


def test_by_hand():
    predicted = np.array([0.9, 0.1, 0.7, 0.3], np.float32)
    observed = np.array([1, 0, 0, 1], np.float32)
    found = reliability(predicted, observed, bins=2)
    assert_allclose(found.predicted, [0.2, 0.8], rtol=1e-6)
    assert_array_equal(found.observed, [0.5, 0.5])
    assert_array_equal(found.count, [2, 2])
    assert found.ece == pytest.approx(0.3, rel=1e-6)
    json.dumps(found.to_dict(), allow_nan=False)


def test_equal_predictions_share_a_bin_whatever_their_order():
    predicted = np.array([0.2] * 8 + [0.8] * 2)
    observed = np.array([0.0] * 4 + [1.0] * 4 + [1.0, 0.0])
    found = reliability(predicted, observed, bins=5)
    assert_array_equal(found.count, [8, 2])
    assert_allclose(found.observed, [0.5, 0.5])
    assert found.ece == pytest.approx(0.3)
    order = np.random.default_rng(0).permutation(10)
    assert reliability(predicted[order], observed[order], bins=5).ece == pytest.approx(0.3)


def test_bins_have_equal_mass_where_predictions_differ():
    predicted = np.random.default_rng(0).random((100, 3))
    found = reliability(predicted, predicted)
    assert_array_equal(found.count, [20] * 15)
    assert found.ece == pytest.approx(0.0, abs=1e-15)


def test_missing_pairs_are_left_out():
    predicted = np.array([[0.5, NAN], [0.5, 0.5]], np.float32)
    observed = np.array([[1, 1], [NAN, 0]], np.float32)
    found = reliability(predicted, observed)
    assert_array_equal(found.count, [2])
    assert found.ece == 0.0


@pytest.mark.parametrize(
    "predicted, observed, bins, words",
    [
        ([0.5], [0.5, 1], 15, r"shape \(1,\), observations \(2,\)"),
        ([0.5], [NAN], 15, "none of 1 predictions has an observation"),
        ([0.5], [1.0], 0, "bins must be at least 1, got 0"),
    ],
)
def test_bad_input(predicted, observed, bins, words):
    with pytest.raises(ValueError, match=words):
        reliability(np.array(predicted), np.array(observed), bins)


def test_every_model_and_the_chosen_one():
    results = make_results(
        [[1, 0.4], [0, 0.6]],
        {"mean": [0, 0], "s3": [1, 1]},
        predicted={"mean": [[0.6, 0.5], [0.6, 0.5]], "s3": [[0.5, 0.5], [0.5, 0.5]]},
    )
    mean = reliabilities(results)
    assert mean["every model"].ece == pytest.approx((0.1 * 2 + 0) / 4, rel=1e-5)
    assert mean["the chosen model"].ece == pytest.approx(0.1, rel=1e-5)
    # The chances of s3 are of being correct: .4 is not, .6 is.
    s3 = reliabilities(results, "s3")
    assert s3["the chosen model"].observed.tolist() == [0.5]
