"""Cost-quality curves, hulls, AIQ and gains, by hand and against brute force."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from prompt_results import make_results

from benchrouter.evaluation.prompts.cost_curve import aiq, non_decreasing_hull, settings_over_lambda
from benchrouter.evaluation.prompts.costs import cost_quality, gains

NAN = float("nan")


@pytest.mark.parametrize(
    "points, hull",
    [
        ([(1, 0.5)], [(1, 0.5)]),
        ([(3, 0.5), (1, 0.5)], [(1, 0.5)]),  # dearer and no better
        ([(1, 0.2), (1, 0.5), (2, 0.4)], [(1, 0.5)]),
        ([(1, 0.5), (2, 0.55), (3, 0.9)], [(1, 0.5), (3, 0.9)]),  # below the line
        ([(1, 0.5), (2, 0.8), (3, 0.9)], [(1, 0.5), (2, 0.8), (3, 0.9)]),
        ([(1, 0.5), (2, 0.7), (3, 0.9)], [(1, 0.5), (3, 0.9)]),  # on the line
        ([(1, -2), (4, -1), (5, -3)], [(1, -2), (4, -1)]),
    ],
)
def test_hull_by_hand(points, hull):
    assert_allclose(non_decreasing_hull(np.array(points, float)), hull)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_hull_lies_on_or_above_every_point(seed, n):
    points = np.random.default_rng(seed).integers(0, 6, (n, 2)).astype(float)
    hull = non_decreasing_hull(points)
    assert (np.diff(hull, axis=0) > 0).all()
    slopes = np.diff(hull[:, 1]) / np.diff(hull[:, 0])
    assert (np.diff(slopes) < 0).all()
    assert (np.interp(points[:, 0], hull[:, 0], hull[:, 1]) >= points[:, 1] - 1e-12).all()
    assert all(tuple(vertex) in set(map(tuple, points)) for vertex in hull)


@pytest.mark.parametrize(
    "hull, low, high, area",
    [
        ([(1, 0.5), (2, 0.8)], 1, 3, (0.65 + 0.8) / 2),  # flat beyond the last vertex
        ([(2, 0.8)], 1, 3, (0.6 + 0.8) / 2),  # from (0, 0) up to the first
        ([(0, 0.4), (4, 0.8)], 1, 3, 0.6),
        ([(1, 0.5), (2, 0.8)], 5, 6, 0.8),
    ],
)
def test_aiq_by_hand(hull, low, high, area):
    assert aiq(np.array(hull, float), low, high) == pytest.approx(area)


def test_hull_and_aiq_refuse_nothing():
    with pytest.raises(ValueError, match="at least one point"):
        non_decreasing_hull(np.empty((0, 2)))
    with pytest.raises(ValueError, match="range of costs, found 1 to 1"):
        aiq(np.array([[1.0, 1.0]]), 1, 1)


def test_settings_by_hand():
    predicted = np.array([[0.9, 0.5], [0.4, 0.6], [0.5, 0.5]])
    cost = np.array([[3.0, 1.0]] * 3)
    lambdas, picks = settings_over_lambda(predicted, cost)
    # Only the first prompt ever pays for model 0: .4 more for 2 US$ more, as long as λ < .2.
    assert_allclose(lambdas, [0, 0.2])
    assert_array_equal(picks, [[0, 1, 1], [1, 1, 1]])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_settings_maximise_the_utility(seed, n_models, per_prompt):
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 5, (20, n_models)) / 4
    cost = rng.integers(0, 4, (20 if per_prompt else 1, n_models)) + 1.0
    cost = np.broadcast_to(cost, predicted.shape)
    lambdas, picks = settings_over_lambda(predicted, cost)
    assert lambdas[0] == 0 and (np.diff(lambdas) > 0).all()
    for value, picked in zip(lambdas, picks, strict=True):
        utility = predicted - value * cost
        found = np.take_along_axis(utility, picked[:, None], axis=1)[:, 0]
        assert_allclose(found, utility.max(axis=1), atol=1e-12)
    here = np.arange(20)
    assert_array_equal(cost[here, picks[-1]], cost.min(axis=1))
    spent = [cost[here, picked].mean() for picked in picks]
    assert (np.diff(spent) < 0).all()  # every λ of the curve changes a choice
    few, fewer_picks = settings_over_lambda(predicted, cost, n_settings=3)
    assert len(few) == min(3, len(lambdas))
    assert_array_equal(fewer_picks[[0, -1]], picks[[0, -1]])


def priced(**fields):
    """Two prompts, a cheap model 0 and a dear model 1 that is better on the second."""
    return make_results(
        [[1, 1], [0, 1]],
        {"mean": [0, 1], "BMA": [1, 1], "cheapest": [0, 0], "oracle": [0, 1]},
        **{
            "predicted": {"mean": [[0.9, 0.8], [0.1, 0.7]]},
            "cost_usd": np.array([[1, 4], [3, 6]], np.float32),
            "expected_cost_usd": np.array([[2.0, 5.0]]),
            **fields,
        },
    )


def test_cost_quality_by_hand():
    curve = cost_quality(priced(), "mean")
    # Model 1 is worth its 3 US$ more on the second prompt as long as λ < .6 / 3.
    assert_allclose(curve.lambdas, [0, 0.2])
    assert_allclose(curve.cost_usd, [(1 + 6) / 2, (1 + 3) / 2])
    assert_allclose(curve.score, [1, 0.5])
    assert_allclose(curve.hull, [(2, 0.5), (3.5, 1)])
    assert_allclose(curve.zero_hull, [(2, 0.5), (5, 1)])
    assert curve.cost_range == (2, 5)
    assert curve.aiq == pytest.approx((1.5 * 0.75 + 1.5) / 3)
    assert curve.zero_aiq == pytest.approx(0.75)
    assert (curve.best_single, curve.n_prompts, curve.n_left_out) == ("model 1", 2, 0)
    assert curve.perf_gain == pytest.approx(0.0)
    assert curve.cost_save == pytest.approx(1 - 3.5 / 5)
    json.dumps(curve.to_dict(), allow_nan=False)


def test_decisions_know_only_costs_that_the_training_part_expects():
    dear = priced(expected_cost_usd=np.array([[5.0, 2.0]]))  # mistaken about which is cheap
    curve = cost_quality(dear, "mean")
    assert_allclose(curve.cost_usd[-1], 5)  # the model thought cheapest
    assert_allclose(curve.model_cost_usd, [2, 5])


def test_a_choice_goes_by_the_prompts_expected_cost_and_the_bill_by_what_was_recorded():
    # Model 1 is .2 better on both prompts; only on the first is it expected to cost much more.
    results = priced(
        predicted={"mean": [[0.5, 0.7], [0.5, 0.7]]},
        expected_cost_usd=np.array([[1.0, 9.0], [1.0, 3.0]]),
    )
    curve = cost_quality(results, "mean")
    assert_allclose(curve.lambdas, [0, 0.2 / 8, 0.2 / 2], rtol=1e-6)
    # Recorded are 1 and 4 US$ on the first, 3 and 6 on the second.
    assert_allclose(curve.cost_usd, [(4 + 6) / 2, (1 + 6) / 2, (1 + 3) / 2])
    assert_allclose(curve.score, [1, 1, 0.5])


def test_prompts_without_every_cost_are_left_out():
    curve = cost_quality(priced(cost_usd=np.array([[1, 4], [3, NAN]], np.float32)), "mean")
    assert (curve.n_prompts, curve.n_left_out) == (1, 1)
    # A model of unknown cost is no candidate.
    curve = cost_quality(priced(cost_usd=np.array([[1, NAN], [3, NAN]], np.float32)), "mean")
    assert curve.models == ("model 0",) and np.isnan(curve.aiq)
    assert "AIQ is left out: all models cost the same" in curve.notes


def test_no_costs_and_no_common_prompt_are_refused():
    with pytest.raises(ValueError, match="no cost is recorded"):
        cost_quality(priced(cost_usd=None), "mean")
    with pytest.raises(ValueError, match="none of 2 test prompts has the score and the cost of al"):
        cost_quality(priced(cost_usd=np.array([[1, NAN], [NAN, 6]], np.float32)), "mean")


def test_negative_scores_have_a_curve_but_no_ratios():
    results = priced()
    results = make_results(
        -results.scores["score"] - 1,
        results.picks,
        predicted=results.predicted,
        cost_usd=results.cost_usd,
        expected_cost_usd=results.expected_cost_usd,
    )
    curve = cost_quality(results, "mean")
    assert np.isnan([curve.aiq, curve.perf_gain, curve.cost_save]).all()
    assert curve.notes == ("AIQ, PerfGain, CostSave are left out: scores are below 0",)
    assert_allclose(curve.score, [-2, -1.5])


def test_no_setting_as_good_as_the_best_single_model():
    curve = cost_quality(priced(predicted={"mean": [[0.9, 0.1], [0.9, 0.1]]}), "mean")
    assert np.isnan(curve.cost_save) and curve.perf_gain == pytest.approx(-0.5)
    assert any("CostSave is left out" in note for note in curve.notes)


def test_ratios_to_nothing_are_left_out_and_said():
    results = make_results(
        [[0, 0]],
        {"mean": [0]},
        predicted={"mean": [[0, 0]]},
        cost_usd=np.array([[0, 1]], np.float32),
        expected_cost_usd=np.array([[0.0, 1.0]]),
    )
    curve = cost_quality(results, "mean")
    assert np.isnan([curve.perf_gain, curve.cost_save]).all() and curve.aiq == 0
    assert [note.split(" is left out")[0] for note in curve.notes] == ["PerfGain", "CostSave"]
    assert curve.why == {
        "PerfGain": "no single model has a score above 0",
        "CostSave": "the best single model costs nothing",
    }


def test_the_best_single_model_ran_everywhere():
    results = make_results([[1, 0.6], [NAN, 0.6]], {"mean": [1, 1]}, dataset=[0, 1])
    assert gains(results)[0].best_single == "model 1"


def test_gains_by_hand():
    # Dataset 0: models right on 2/2 and 1/2; dataset 1: on 0/2 and 1/2; dataset 2: on none.
    scores = [[1, 1], [1, 0], [0, 1], [0, 0], [0, 0]]
    results = make_results(
        scores,
        {"mean": [1, 0, 0, 0, 0], "BMA": [0] * 5, "oracle": [0, 0, 1, 0, 0]},
        dataset=[0, 0, 1, 1, 2],
    )
    found = {gain.rule: gain for gain in gains(results)}
    assert list(found) == ["mean", "BMA"]
    mean = found["mean"]
    # Both models have macro accuracy 1/3: the first in the table is the best single one.
    assert mean.best_single == "model 0"
    assert mean.n_datasets == (2, 1, 2)  # no ratio where the divisor is 0
    assert mean.gain_random == pytest.approx(((1 / 0.75 - 1) + (0 / 0.25 - 1)) / 2)
    assert mean.gain_best == pytest.approx(0.0)
    assert mean.gap_oracle == pytest.approx(((1 - 1) + (1 - 0)) / 2)
    json.dumps([gain.to_dict() for gain in gains(results)], allow_nan=False)
