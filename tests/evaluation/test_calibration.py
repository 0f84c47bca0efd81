"""Reliability curves and ECE by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from prompt_results import make_results

from benchrouter.evaluation.prompts.calibration import interval_holds, reliabilities, reliability

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
    mean = reliabilities(results, "mean")
    assert mean["every model"].ece == pytest.approx((0.1 * 2 + 0) / 4, rel=1e-5)
    assert mean["the chosen model"].ece == pytest.approx(0.1, rel=1e-5)
    # The chances of s3 are of being correct: .4 is not, .6 is.
    s3 = reliabilities(results, "s3")
    assert s3["the chosen model"].observed.tolist() == [0.5]


def test_log_loss_by_hand():
    found = reliability(np.array([0.8, 0.5, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.5, 0.999]).mean())  # 0 counts as .001
    wrong = reliability(np.array([0.0]), np.array([1.0]))
    assert wrong.log_loss == pytest.approx(-np.log(0.001))
    half = reliability(np.array([0.25]), np.array([0.5]))
    assert half.log_loss == pytest.approx(-(np.log(0.25) + np.log(0.75)) / 2)
    outside = reliability(np.array([0.5]), np.array([-1.0]))
    assert np.isnan(outside.log_loss) and outside.to_dict()["log_loss"] is None


def test_the_chance_of_auto_and_the_standings_are_held_against_correctness():
    results = make_results(
        [[0.9, 0.4], [0.2, 0.6]],  # correct: the first model on the first, the second on the second
        {"auto": [0, 1], "BMA": [0, 0]},
        predicted={"auto": [[0.6, 0.4], [0.3, 0.5]], "BMA": [[0.5, 0.75], [0.5, 0.75]]},
        chance=np.array([[0.8, 0.1], [0.3, 0.7]], np.float32),
    )
    auto, standing = reliabilities(results), reliabilities(results, "BMA")
    told = np.array([0.8, 0.9, 0.7, 0.7])  # chances of what was observed
    assert auto["every model"].log_loss == pytest.approx(-np.log(told).mean(), rel=1e-6)
    assert auto["the chosen model"].predicted.tolist() == pytest.approx([0.7, 0.8])
    assert auto["the chosen model"].observed.tolist() == [1.0, 1.0]
    expected = -np.log([0.5, 0.25, 0.5, 0.75]).mean()
    assert standing["every model"].log_loss == pytest.approx(expected)
    without = replace(results, chance=None)  # no chance: the expected score
    assert reliabilities(without)["the chosen model"].predicted.tolist() == pytest.approx(
        [0.5, 0.6]
    )


def test_the_interval_holds_the_success_rate_of_a_dataset():
    results = make_results(
        [[1], [1], [1], [1], [0], [0], [NAN]],
        {"auto": [0] * 7},
        dataset=[0, 0, 0, 0, 1, 1, 2],
        chance=np.full((7, 1), 0.5, np.float32),
        chance_spread=np.array([0.3] * 4 + [0.0] * 3),
    )
    # Off by .5: √(.3² + .25/4) · 1.28 = .501 holds; without spread √(.25/2) · 1.28 = .453 does not.
    assert_array_equal(interval_holds(results), [1, 0, NAN])
    with pytest.raises(ValueError, match="no threshold between right and wrong"):
        interval_holds(replace(results, chance=None))
