"""All models in order: the decision first, then what would be chosen without those before it."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from operator import attrgetter

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router, Settings
from benchrouter.decisions.answers import Decisions

POLICIES = [
    None,
    CostPolicy(),
    CostPolicy(cost_weight=8.0),
    CostPolicy(cost_weight=float("inf")),
    CostPolicy(within=0.2),
    CostPolicy(min_success=0.6),
    CostPolicy(max_cost_usd=0.02),
    CostPolicy(max_cost_usd=0.0, cost_weight=2.0),
]


@pytest.fixture(scope="module")
def router():
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(4, dtype=np.float32), 40, axis=0) + 0.25 * unit_rows(160, 4, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    dataset = np.repeat(np.arange(4), 40)
    right = (rng.random((160, 5)) < rng.random((4, 5))[dataset]).astype(np.float32)
    right[rng.random(right.shape) < 0.1] = np.nan
    table = make_table(right, dataset, cost_usd=rng.random((160, 5)).astype(np.float32) * 0.05)
    return Router.fit(table, embeddings=rows, settings=Settings(k=5, kappa=7))


@pytest.fixture(scope="module")
def queries(router):
    near = router._fit.embeddings[::7] + 0.1 * unit_rows(23, 4, seed=5)
    far = 0.1 * unit_rows(8, 4, seed=6) - 1  # from every record
    rows = np.concatenate([near, far]).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("rule", "policy"),
    [*product(["auto", "mean", "raw", "s3"], POLICIES), ("auto", CostPolicy(within="auto"))],
)
def test_the_decisions_are_those_of_route(router, queries, rule, policy):
    routed = router.route(embeddings=queries, rule=rule, policy=policy)
    ranked = router.rank(embeddings=queries, rule=rule, policy=policy)
    assert routed.fallback.any() and not routed.fallback.all()
    assert (routed.chance is None) == (rule != "auto")
    for name in map(attrgetter("name"), fields(Decisions)[1:]):
        expected = getattr(routed, name)
        found = getattr(ranked.decisions, name)
        assert (expected is None) == (found is None), name
        if expected is not None:
            assert_array_equal(found, expected, err_msg=name)
    assert_array_equal(ranked.order[:, 0], routed.model)
    assert_array_equal(np.sort(ranked.order, axis=1), np.tile(np.arange(5), (len(queries), 1)))
    here = np.arange(len(queries))
    assert_array_equal(ranked.scores[here, routed.model], routed.score)
    if policy is not None:
        assert_array_equal(ranked.cost_usd[here, routed.model], routed.cost_usd)


@pytest.mark.parametrize("rule", ["auto", "mean"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_model_is_the_choice_without_those_before(router, queries, rule, policy):
    ranked = router.rank(embeddings=queries, rule=rule, policy=policy)
    certain = ~ranked.decisions.fallback
    for i in np.flatnonzero(certain):
        for rank in range(1, 5):
            left = [router.models[m] for m in ranked.order[i, rank:]]
            again = router.rank(
                embeddings=queries[i : i + 1], rule=rule, policy=policy, models=left
            )
            assert again.decisions.names() == left[:1]
            assert_array_equal(again.order[0], ranked.order[i, rank:])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("models", [["model 3"], ["model 1", "model 4"]])
def test_only_models_that_are_allowed(router, queries, policy, models):
    found = router.rank(embeddings=queries, rule="mean", policy=policy, models=models)
    assert set(found.decisions.names()) <= set(models)
    assert found.order.shape == (len(queries), len(models))
    if len(models) == 1:
        assert not found.decisions.margin.any()
    elif policy is None:
        here, (a, b) = np.arange(len(queries)), (1, 4)
        best = np.where(found.scores[:, b] > found.scores[:, a], b, a)
        tied = found.scores[:, a] == found.scores[:, b]
        free = ~found.decisions.fallback & ~tied
        assert free.any()
        assert_array_equal(found.decisions.model[free], best[free])
        difference = found.scores[here, best] - found.scores[here, a + b - best]
        assert_array_equal(found.decisions.margin[free], difference[free])


@pytest.mark.parametrize("rule", ["auto", "mean", "raw", "s3"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("models", [["model 3"], ["model 1", "model 4"], ["model 0", "model 2"]])
def test_route_among_some_models(router, queries, rule, policy, models):
    ranked = router.rank(embeddings=queries, rule=rule, policy=policy, models=models).decisions
    routed = router.route(embeddings=queries, rule=rule, policy=policy, models=iter(models))
    assert routed.models == router.models
    assert set(routed.names()) <= set(models)
    parts = [(None, queries[:7]), (None, queries[7:])]
    streamed = list(router.route_stream(parts, rule=rule, policy=policy, models=iter(models)))
    for name in map(attrgetter("name"), fields(Decisions)[1:]):
        expected = getattr(ranked, name)
        if expected is None:
            assert getattr(routed, name) is None
            continue
        assert_array_equal(getattr(routed, name), expected, err_msg=name)
        found = np.concatenate([getattr(part, name) for part in streamed])
        assert_array_equal(found, expected, err_msg=name)


def test_a_budget_among_some_models(router, queries):
    models = ["model 1", "model 4"]
    best = router.route(embeddings=queries, policy=CostPolicy(), models=models).cost_usd
    cheap = CostPolicy(cost_weight=float("inf"))
    least = router.route(embeddings=queries, policy=cheap, models=models).cost_usd
    budget = float(best.sum(dtype=float) + least.sum(dtype=float)) / 2
    policy = CostPolicy(budget_usd=budget)
    found = router.route(embeddings=queries, policy=policy, models=models)
    assert set(found.names()) == set(models)
    assert least.sum(dtype=float) < found.cost_usd.sum(dtype=float) <= budget * (1 + 1e-6)
    weight = router.find_cost_weight([(None, queries)], policy, models=models)
    again = CostPolicy(cost_weight=weight)
    assert router.route(embeddings=queries, policy=again, models=models).names() == found.names()


def test_among_some_models_is_as_fitted_on_these_models(router, queries):
    models = ["model 0", "model 2", "model 3"]
    alone = Router.fit(
        router.table.select(models=models),
        embeddings=router._fit.embeddings,
        settings=Settings(k=5, kappa=7),
    )
    for rule in ("mean", "raw"):
        found = router.route(embeddings=queries, rule=rule, models=models)
        expected = alone.route(embeddings=queries, rule=rule)
        assert_array_equal(found.fallback, expected.fallback)
        assert found.names() == expected.names()
        assert_array_equal(found.score, expected.score)
        assert_array_equal(found.margin, expected.margin)


def test_a_fallback_model_that_is_not_allowed_is_replaced_by_the_best_standing(router, queries):
    everyone = router.rank(embeddings=queries)
    far = everyone.decisions.fallback
    fallback = router.best_on_average
    rest = [name for name in router.models if name != fallback]
    for policy in (None, CostPolicy()):
        found = router.rank(embeddings=queries, models=rest, policy=policy)
        standing = {m["name"]: m["standing"] for m in router.describe()["models"]}
        expected = max(rest, key=standing.__getitem__)
        assert {found.decisions.names()[i] for i in np.flatnonzero(far)} == {expected}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("models", [None, ["model 3"], ["model 1", "model 4"]])
def test_what_is_explained_is_the_choice_among_the_models_allowed(router, queries, policy, models):
    ranked = router.rank(embeddings=queries, policy=policy, models=models).decisions
    for i, row in enumerate(queries):
        found = router.explain(embedding=row, policy=policy, models=models)
        assert found.model == ranked.names()[i]
        assert (found.score, found.margin) == (ranked.score[i], ranked.margin[i])
        assert found.models == router.models
        if not found.fallback:
            assert found.reason.startswith((found.model, "no model"))
            assert found.reason.endswith("among the models allowed") == (models is not None)


def test_without_prompts(router):
    found = router.rank([], embeddings=np.empty((0, 4), np.float32))
    assert found.order.shape == (0, 5) and found.scores.shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"models": ["nobody"]}, ValueError, "models: found 'nobody', expected some of"),
        ({"models": []}, ValueError, "models must name at least one model, found none"),
        ({"models": "model 1"}, TypeError, "got a single string, 'model 1'"),
        ({"policy": CostPolicy(budget_usd=1.0)}, ValueError, "budget_usd is for all prompts"),
        ({"rule": "best"}, ValueError, "rule must be"),
    ],
)
def test_what_is_refused(router, queries, arguments, error, words):
    with pytest.raises(error, match=words):
        router.rank(embeddings=queries, **arguments)
