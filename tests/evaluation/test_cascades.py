"""Two-model cascades by hand, against a loop, and from held-out folds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from prompt_results import make_results

from benchrouter.evaluation.prompts.cascades import cascades
from benchrouter.evaluation.prompts.costs import cost_quality

NAN, INF = float("nan"), float("inf")


def found_in(results):
    return {(c.cheap, c.judge): c for c in cascades(results, cost_quality(results, "auto"))}


def priced(**fields):
    """Four prompts; model 0 is cheap and right on two, model 1 is dear and right on three."""
    return make_results(
        [[1, 1], [0, 1], [1, 0], [0, 1]],
        {"BMA": [1, 1, 1, 1]},
        **{
            "predicted": {"auto": [[0.9, 0.8], [0.1, 0.7], [0.5, 0.7], [0.5, 0.7]]},
            "cost_usd": np.array([[1, 4], [1, 4], [2, 6], [2, 6]], np.float32),
            "expected_cost_usd": np.array([[1.5, 5.0]]),
            **fields,
        },
    )


def test_by_hand():
    found = found_in(priced())
    assert list(found) == [("model 0", "predicted score"), ("model 0", "recorded score")]
    before = found["model 0", "predicted score"]
    # Prompts in the order of doubt: the second, then the last two at once, then the first.
    assert_allclose(before.thresholds, [0.1, 0.5, 0.9, INF], rtol=1e-6)
    assert_allclose(before.escalated, [0, 0.25, 0.75, 1])
    assert_allclose(before.cost_usd, [6 / 4, 9 / 4, 17 / 4, 20 / 4])  # one call a prompt
    assert_allclose(before.score, [0.5, 0.75, 0.75, 0.75])
    assert_allclose(before.hull, [(1.5, 0.5), (2.25, 0.75)])
    assert_allclose(before.pair_hull, [(1.5, 0.5), (5, 0.75)])
    assert not before.pays_both
    # Between 1.5 and 5 US$: up to 0.75 within 0.75 US$, then flat; the mix climbs all the way.
    assert before.lift == pytest.approx(0.75 - 0.125 * 0.75 / 3.5 - 0.625)
    assert before.cost_save == pytest.approx(1 - 2.25 / 5)
    # With two models the cascade and the single models share a hull.
    assert before.aiq - before.zero_aiq == pytest.approx(before.lift)
    perfect = found["model 0", "recorded score"]
    assert perfect.pays_both
    assert_allclose(perfect.thresholds, [0, 1, INF])
    assert_allclose(perfect.cost_usd, [6 / 4, 16 / 4, 26 / 4])  # 4 + 6 more for the wrong two
    assert_allclose(perfect.score, [0.5, 1.0, 0.75])
    assert perfect.cost_save == pytest.approx(1 - 4 / 5)
    json.dumps([c.to_dict() for c in found.values()], allow_nan=False)


def test_the_models_own_confidence_judges_after_it_has_run():
    confidence = np.array([[-0.1, NAN], [-3, NAN], [-0.2, NAN], [-2, NAN]], np.float32)
    found = found_in(priced(log_likelihood=confidence))
    assert [judge for _, judge in found] == ["predicted score", "log-likelihood", "recorded score"]
    curve = found["model 0", "log-likelihood"]
    assert_allclose(curve.thresholds, [-3, -2, -0.2, -0.1, INF], rtol=1e-6)
    assert_allclose(curve.cost_usd, np.cumsum([6, 4, 6, 6, 4]) / 4)
    assert_allclose(curve.score, np.cumsum([2, 1, 1, -1, 0]) / 4)
    confidence[0, 0] = NAN  # not known of every prompt
    assert ("model 0", "log-likelihood") not in found_in(priced(log_likelihood=confidence))


def test_the_chance_of_success_judges_where_auto_tells_one():
    chance = np.array([[0.2, 0.5], [0.8, 0.5], [0.6, 0.5], [0.4, 0.5]], np.float32)
    found = found_in(priced(chance=chance))["model 0", "predicted score"]
    assert_allclose(found.thresholds, [0.2, 0.4, 0.6, 0.8, INF], rtol=1e-6)
    assert_allclose(found.score, np.cumsum([2, 0, 1, -1, 1]) / 4)  # 1st, 4th, 3rd, 2nd prompt


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_every_threshold_is_what_a_loop_over_prompts_gives(seed):
    rng = np.random.default_rng(seed)
    n = 25
    results = make_results(
        rng.random((n, 3)) < [0.4, 0.6, 0.9],
        {"BMA": rng.choice([1, 2], n, p=[0.1, 0.9])},  # of another fold, another
        predicted={"auto": rng.integers(0, 6, (n, 3)) / 5},
        cost_usd=(rng.integers(1, 4, (n, 3)) * [1, 3, 9]).astype(np.float32),
        expected_cost_usd=np.array([[2.0, 6.0, 18.0]]),
        log_likelihood=-rng.integers(0, 9, (n, 3)).astype(np.float32),
    )
    signals = {
        "predicted score": results.predicted["auto"],
        "log-likelihood": results.log_likelihood,
        "recorded score": results.scores["score"],
    }
    recorded, cost, bma = results.scores["score"], results.cost_usd, results.picks["BMA"]
    zero = cost_quality(results, "auto")
    found = cascades(results, zero)
    names = set(results.models)
    assert found and {c.cheap for c in found} < names
    for curve in found:
        cheap = results.models.index(curve.cheap)
        for i, threshold in enumerate(curve.thresholds):
            spent = gained = 0.0
            for q in range(n):
                doubted = signals[curve.judge][q, cheap] < threshold and bma[q] != cheap
                spent += cost[q, bma[q]] if doubted else 0.0
                spent += cost[q, cheap] if not doubted or curve.pays_both else 0.0
                gained += recorded[q, bma[q]] if doubted else recorded[q, cheap]
            assert curve.cost_usd[i] == pytest.approx(spent / n)
            assert curve.score[i] == pytest.approx(gained / n)
        assert curve.escalated[0] == 0 and curve.escalated[-1] == pytest.approx(1)
        assert curve.aiq >= curve.zero_aiq - 1e-12
        single = recorded[:, cheap].mean()
        assert curve.score[0] == pytest.approx(single)


def test_only_models_of_the_zero_router_that_are_cheaper_than_bma():
    cost = np.tile(np.array([1, 2, 3, 9], np.float32), (4, 1))
    scores = [[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1]]
    results = make_results(
        scores,
        {"BMA": [2] * 4},
        predicted={"auto": np.full((4, 4), 0.5)},
        cost_usd=cost,
        expected_cost_usd=cost[:1].astype(float),
    )
    # Model 1 is dearer and no better than model 0; model 3 is dearer than BMA.
    assert {c.cheap for c in cascades(results, cost_quality(results, "auto"))} == {"model 0"}


def test_no_cascade_without_a_cheaper_model_or_the_cost_of_bma():
    cheapest = make_results(
        [[1, 1], [0, 1]],
        {"BMA": [0, 0]},
        predicted={"auto": [[0.5, 0.5]] * 2},
        cost_usd=np.array([[1, 4], [1, 4]], np.float32),
        expected_cost_usd=np.array([[1.0, 4.0]]),
    )
    with pytest.raises(ValueError, match="no model of the zero router is cheaper than BMA"):
        cascades(cheapest, cost_quality(cheapest, "auto"))
    unknown = priced(cost_usd=np.array([[1, NAN]] * 4, np.float32))
    with pytest.raises(ValueError, match="the cost of model 1, best on average, is not known"):
        cascades(unknown, cost_quality(unknown, "auto"))


def test_many_thresholds_are_thinned_and_keep_their_ends():
    rng = np.random.default_rng(0)
    n = 1000
    results = make_results(
        rng.random((n, 2)) < [0.5, 0.8],
        {"BMA": [1] * n},
        predicted={"auto": rng.random((n, 2))},
        cost_usd=np.tile(np.array([1, 5], np.float32), (n, 1)),
        expected_cost_usd=np.array([[1.0, 5.0]]),
    )
    curve = found_in(results)["model 0", "predicted score"]
    assert len(curve.thresholds) == 101
    assert_array_equal(curve.escalated[[0, -1]], [0, 1])
    assert_allclose(curve.cost_usd[[0, -1]], [1, 5])
