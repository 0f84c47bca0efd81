"""Choices that weigh cost: against a slow, obvious reference, and what must hold of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router, Settings
from benchrouter.decisions.costs import weighing
from benchrouter.decisions.costs.choice import choose, cost_weight_within
from benchrouter.decisions.costs.reasons import why
from benchrouter.decisions.costs.sources import estimate_tokens, price_of
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import Policy

NAN = float("nan")
INF = float("inf")
OBJECTIVES = [
    {},
    {"cost_weight": 0.5},
    {"cost_weight": 30.0},
    {"cost_weight": INF},
    {"within": 0.25},
    {"within": 0.0},
    {"min_success": 0.5},
    {"max_cost_usd": 0.011},
    {"max_cost_usd": 0.011, "cost_weight": 5.0},
    {"max_cost_usd": 0.004, "within": 0.2},
    {"max_cost_usd": 0.0, "min_success": 0.3},
]


def choice_by_hand(score, cost, limit, rank, policy, cost_weight, chance):
    """Model of one prompt: candidates, then the first by sorted keys."""
    score = [-INF if math.isnan(s) else s for s in score]
    allowed = [m for m in range(len(score)) if cost[m] <= limit]

    def best(m):
        return (-score[m], cost[m], rank[m])

    def cheap(m):
        return (cost[m], -score[m], rank[m])

    if policy.within is not None:
        most = max(score[m] for m in allowed)
        return min((m for m in allowed if score[m] >= most - policy.within), key=cheap)
    if policy.min_success is not None:
        enough = [m for m in allowed if chance[m] > policy.min_success]
        return min(enough, key=cheap) if enough else min(allowed, key=best)
    if cost_weight == INF:
        return min(allowed, key=cheap)
    return min(allowed, key=lambda m: (-(score[m] - cost_weight * cost[m]), cost[m], rank[m]))


# --- the choice ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.sampled_from([*OBJECTIVES, {"within": 1.0}, {"min_success": 1.0}, {"cost_weight": 1e300}]),
)
def test_choices_with_many_ties_are_those_of_the_reference(seed, n_models, given_policy):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 4, (12, n_models)) / 4
    score[rng.random(score.shape) < 0.1] = NAN
    cost = rng.integers(0, 4, (12, n_models)) / 4
    chance = np.round(np.nan_to_num(score) * 0.9, 2)
    limit = np.maximum(rng.integers(0, 4, 12) / 4, cost.min(axis=1))
    rank = rng.permutation(n_models).astype(np.int32)
    policy = CostPolicy(**given_policy)
    weight = policy.cost_weight or 0.0
    found = choose(score, cost, limit, rank, policy, weight, chance, within=policy.within)
    assert found.dtype == np.int32
    expected = [
        choice_by_hand(score[i], cost[i], limit[i], rank, policy, weight, chance[i])
        for i in range(12)
    ]
    assert_array_equal(found, expected)


def test_choices_by_hand():
    score = np.array([[0.9, 0.8, 0.5]])
    cost = np.array([[4.0, 1.0, 0.5]])
    rank, free = np.arange(3, dtype=np.int32), np.array([INF])

    def chosen(limit=free, **policy):
        made = CostPolicy(**policy)
        chance = np.array([[0.7, 0.6, 0.4]])
        weight = made.cost_weight or 0.0
        return choose(score, cost, limit, rank, made, weight, chance, within=made.within)[0]

    assert chosen() == 0
    assert chosen(cost_weight=0.1) == 1  # 0.5, 0.7, 0.45
    assert chosen(cost_weight=0.7) == 2  # −1.9, 0.1, 0.15
    assert chosen(within=0.05) == 0
    assert chosen(within=0.2) == 1
    assert chosen(min_success=0.55) == 1
    assert chosen(min_success=0.6) == 0  # strictly above
    assert chosen(min_success=0.9) == 0  # none is so sure: the best
    assert chosen(np.array([2.0])) == 1
    assert chosen(np.array([2.0]), min_success=0.9) == 1


# --- the whole line ------------------------------------------------------------------------------


def draw_table(seed, *, binary=True, missing=0.15, n_models=4, n=60, dim=4, **fields):
    """Records around one axis a dataset; dear models are better, some scores and costs missing."""
    rng = np.random.default_rng(seed)
    dataset = np.arange(n) % 3
    rows = unit_rows(n, dim, seed) * 0.5 + np.eye(dim, dtype=np.float32)[dataset]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = rng.random((n, n_models)) + 0.1 * np.arange(n_models)
    scores = (values > 0.6).astype(float) if binary else np.clip(values, 0, 1)
    cost = 0.005 * (1 + np.arange(n_models)) * (0.5 + rng.random((n, n_models)))
    hidden = rng.random((2, n, n_models)) < missing
    hidden[:, :3] = False
    scores[hidden[0]] = NAN
    cost[hidden[1]] = NAN
    fields.setdefault("prices", np.array([[0.5, 1.5], [1, 2], [3, 9], [5, 15]])[:n_models])
    table = make_table(scores, dataset, cost_usd=cost.astype(np.float32), **fields)
    return table, rows.astype(np.float32)


def decisions_by_hand(router, table, rows, queries, shown, rule, policy, tokens):
    """Model, score, margin, cost and over_limit of every prompt, by sorting and loops."""
    k, fit = router._fit.settings.k, router._fit
    similarities = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
    found = []
    for i, explained in enumerate(shown):
        near = sorted(range(len(rows)), key=lambda e: (-similarities[i, e], e))[:k]
        score = explained.scores.astype(np.float32).astype(np.float64)
        if policy.costs == "records":
            recorded = [[c for c in table.cost_usd[near, m].tolist() if c == c] for m in range(4)]
            mean = fit.cost_usd.astype(np.float32).astype(np.float64)
            cost = [(sum(c) + mean[m]) / (len(c) + 1) for m, c in enumerate(recorded)]
        elif policy.costs == "models":
            cost = list(fit.cost_usd)
        else:
            cost = [
                1e-6 * (tokens[i] * price_in + policy.output_tokens * price_out)
                for price_in, price_out in table.prices
            ]
        cost = np.float32(cost).astype(np.float64)
        cap = INF if policy.max_cost_usd is None else float(np.float32(policy.max_cost_usd))
        limit = max(cap, cost.min())
        used = score
        if explained.fallback:
            f = fit.fallback
            standing = (fit.prior if rule == "s3" else fit.raw_prior).astype(np.float64)
            used = [min(s, math.nextafter(standing[f], -INF)) for s in standing]
            used[f] = standing[f]
            limit = min(limit, cost[f])
        chance = None
        if policy.min_success is not None:
            plan = plan_of(fit, Policy(rule=rule, k=k, min_success=policy.min_success))
            chance = router.decider.calibrations.of(plan)(np.asarray(used))
        weight = policy.cost_weight or 0.0
        m = choice_by_hand(used, cost, limit, fit.preferred, policy, weight, chance)
        others = [s for other, s in enumerate(score) if other != m]
        found.append((m, score[m], score[m] - max(others), cost[m], cost.min() > cap))
    return [np.array(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("rule", ["mean", "raw", "s3"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("costs", ["records", "models", "prices"])
def test_decisions_are_those_of_the_reference(rule, binary, costs):
    table, rows = draw_table(3, binary=binary)
    router = Router.fit(
        table,
        embeddings=rows,
        threads=1,
        settings=Settings(label_shares=(0.0,), fallback="model 2", kappa=7),
    )
    queries = np.concatenate([unit_rows(20, 4, seed=9), -np.eye(4, dtype=np.float32)[:2]])
    tokens = np.arange(22) * 90
    assert router.route(embeddings=queries).fallback.any()
    assert not router.route(embeddings=queries).fallback.all()
    shown = [router.explain(embedding=query, rule=rule) for query in queries]
    for objective in OBJECTIVES:
        policy = CostPolicy(costs=costs, output_tokens=500, **objective)
        found = router.route(embeddings=queries, rule=rule, policy=policy, tokens=tokens)
        expected = decisions_by_hand(router, table, rows, queries, shown, rule, policy, tokens)
        assert_array_equal(found.model, expected[0], err_msg=str(objective))
        assert_allclose(found.score, expected[1], atol=1e-6)
        assert_allclose(found.margin, expected[2], atol=1e-6)
        assert_allclose(found.cost_usd, expected[3], rtol=1e-6)
        assert_array_equal(found.over_limit, expected[4])
        assert found.cost_usd.dtype == found.score.dtype == np.float32
        plain = router.route(embeddings=queries, rule=rule)
        assert_array_equal(found.fallback, plain.fallback)
        assert_array_equal(found.distance, plain.distance)


@pytest.fixture(scope="module")
def priced():
    table, rows = draw_table(0, binary=False)
    router = Router.fit(table, embeddings=rows, threads=1, settings=Settings(label_shares=(0.0,)))
    return router, table, unit_rows(500, 4, seed=5)


@pytest.mark.parametrize("rule", ["mean", "raw"])
def test_a_policy_without_an_aim_only_tells_the_cost(priced, rule):
    router, _, queries = priced
    plain = router.route(embeddings=queries, rule=rule)
    assert plain.cost_usd is None and plain.over_limit is None
    for policy in (
        CostPolicy(costs="models"),
        CostPolicy(costs="models", cost_weight=0.0, max_cost_usd=1.0),
        CostPolicy(costs="models", budget_usd=1e9),
    ):
        found = router.route(embeddings=queries, rule=rule, policy=policy)
        for name in ("model", "score", "margin", "distance", "fallback"):
            assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)
        assert_array_equal(found.cost_usd, router._fit.cost_usd.astype(np.float32)[plain.model])


def test_costs_fall_and_scores_fall_as_money_grows_dearer(priced):
    router, _, queries = priced
    weights = [0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e4, INF]
    routed = [router.route(embeddings=queries, policy=CostPolicy(cost_weight=w)) for w in weights]
    spent = [d.cost_usd.sum(dtype=float) for d in routed]
    assert (np.diff(spent) <= 0).all() and spent[0] > 2 * spent[-1]
    assert_array_equal(routed[-1].model, 0)  # the cheapest everywhere, fallbacks too
    assert (routed[-2].margin < 0).any()
    gained = [d.score[~d.fallback].sum(dtype=float) for d in routed]
    assert (np.diff(gained) <= 0).all()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_budget_is_kept_and_nearly_spent(priced, share):
    router, _, queries = priced
    least, most = (
        router.route(embeddings=queries, policy=CostPolicy(cost_weight=w)).cost_usd.sum(dtype=float)
        for w in (INF, 0.0)
    )
    budget = least + share * (most - least)
    found = router.route(embeddings=queries, policy=CostPolicy(budget_usd=budget))
    spent = found.cost_usd.sum(dtype=float)
    # One prompt's change of model is what a single λ cannot divide.
    assert budget - 0.03 < spent <= budget * (1 + 1e-6)
    # In two passes over a stream: the same λ, the same decisions.
    policy = CostPolicy(budget_usd=budget)
    batches = [(None, queries[i : i + 70]) for i in range(0, 500, 70)]
    weight = router.find_cost_weight(iter(batches), policy)
    assert weight > 0
    stream = router.route_stream(batches, policy=CostPolicy(cost_weight=weight))
    assert_array_equal(np.concatenate([d.model for d in stream]), found.model)


def test_what_is_chosen_is_worth_its_cost(priced):
    """At every λ no other model has a larger score − λ·cost."""
    router, _, queries = priced
    queries = queries[:40]
    predicted = np.array([router.explain(embedding=q, rule="mean").scores for q in queries])
    costs = router._fit.cost_usd
    for weight in (1.0, 10.0):
        policy = CostPolicy(cost_weight=weight, costs="models")
        found = router.route(embeddings=queries, rule="mean", policy=policy)
        utility = found.score - weight * found.cost_usd
        best = (predicted - weight * costs).max(axis=1)
        seen = ~found.fallback
        assert seen.sum() > 20 and len(set(found.model[seen].tolist())) > 1
        assert_allclose(utility[seen], best[seen], atol=1e-6)


def test_budgets_at_their_ends(priced):
    router, table, queries = priced
    least = router.route(embeddings=queries, policy=CostPolicy(cost_weight=INF)).cost_usd
    for budget in (0.0, 0.9 * least.sum(dtype=float)):
        with pytest.raises(ValueError, match=r"budget_usd .* is below what the cheapest models"):
            router.route(embeddings=queries, policy=CostPolicy(budget_usd=budget))
    exact = CostPolicy(budget_usd=float(least.sum(dtype=float)))
    assert_allclose(router.route(embeddings=queries, policy=exact).cost_usd, least)
    nothing = router.route(embeddings=queries[:0], policy=CostPolicy(budget_usd=0.0))
    assert len(nothing) == 0 and nothing.cost_usd.shape == (0,)
    free = replace(table, cost_usd=np.zeros_like(table.cost_usd))
    router = Router.fit(free, embeddings=unit_rows(60, 4), settings=Settings(label_shares=(0.0,)))
    found = router.route(embeddings=queries, policy=CostPolicy(budget_usd=0.0))
    assert_array_equal(found.model, router.route(embeddings=queries).model)
    assert (found.cost_usd == 0).all()


def test_a_limit_per_prompt(priced):
    router, _, queries = priced
    costs = router._fit.cost_usd
    cap = float(costs[1])
    found = router.route(embeddings=queries, policy=CostPolicy(max_cost_usd=cap, costs="models"))
    assert set(found.model.tolist()) <= {0, 1}  # a model at the limit is allowed
    assert 1 in found.model and not found.over_limit.any()
    nothing = CostPolicy(max_cost_usd=0.5 * float(costs[0]), costs="models", budget_usd=1e9)
    found = router.route(embeddings=queries, policy=nothing)
    assert_array_equal(found.model, 0)
    assert found.over_limit.all()


def test_a_far_prompt_keeps_its_fallback_unless_money_counts(priced):
    _, table, _ = priced
    rows = unit_rows(60, 4)
    router = Router.fit(
        table, embeddings=rows, settings=Settings(label_shares=(0.0,), fallback="model 1")
    )
    far = -rows[:1] - rows[1:2]
    far = (far / np.linalg.norm(far)).astype(np.float32)
    router._fit.__dict__["distance_limit"] = 0.0  # everything is far
    for policy, expected in (
        (CostPolicy(), 1),
        (CostPolicy(within=0.0), 1),
        (CostPolicy(min_success=1.0), 1),
        (CostPolicy(cost_weight=1e6), 0),
        (CostPolicy(within=1.0), 0),
        (CostPolicy(max_cost_usd=float(router._fit.cost_usd[0]), costs="models"), 0),
    ):
        found = router.route(embeddings=far, policy=policy)
        assert found.fallback[0] and found.model[0] == expected, policy


def test_one_model():
    table, rows = draw_table(1, n_models=1)
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,)))
    for objective in OBJECTIVES:
        found = router.route(embeddings=rows, policy=CostPolicy(**objective))
        assert (found.model == 0).all() and (found.margin == 0).all()


def test_blocks_change_nothing(priced, monkeypatch):
    router, _, queries = priced
    queries = queries[:100]
    policies = [CostPolicy(**o) for o in OBJECTIVES] + [CostPolicy(budget_usd=0.8)]
    whole = [router.route(embeddings=queries, policy=p) for p in policies]
    monkeypatch.setattr(weighing, "CELLS", 4 * 37)
    for policy, before in zip(policies, whole, strict=True):
        after = router.route(embeddings=queries, policy=policy)
        for name in ("model", "score", "margin", "cost_usd", "over_limit"):
            assert_array_equal(getattr(after, name), getattr(before, name), err_msg=str(policy))


def test_memory_is_bounded_by_the_block(priced, monkeypatch):
    """No float64 (prompts × models) array is made of more rows than a block has."""
    router, _, queries = priced
    monkeypatch.setattr(weighing, "CELLS", 4 * 64)
    seen = []
    backend = router.decider.backend
    score = backend.score

    def counted(rows, plan):
        seen.append(len(rows))
        return score(rows, plan)

    monkeypatch.setattr(backend, "score", counted)
    router.route(embeddings=queries, policy=CostPolicy(budget_usd=4.0))
    assert seen == [64] * 7 + [52]  # each prompt once, however many λ are tried


def test_without_a_policy_only_the_fused_path_runs(priced, monkeypatch):
    router, _, queries = priced
    monkeypatch.setattr(router.decider.backend, "score", None)
    assert len(router.route(embeddings=queries)) == 500


# --- where costs come from -----------------------------------------------------------------------


def test_a_saved_router_knows_the_costs_of_records(priced, tmp_path):
    router, _, queries = priced
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    assert isinstance(loaded._fit.record_cost_usd, np.memmap)
    policy = CostPolicy(cost_weight=10.0, costs="records")
    one, two = (r.route(embeddings=queries, policy=policy) for r in (router, loaded))
    assert_array_equal(one.model, two.model)
    assert_array_equal(one.cost_usd, two.cost_usd)


def test_a_router_saved_without_costs_of_records_has_those_of_models(priced):
    router, _, queries = priced
    older = Router(replace(router._fit, record_cost_usd=None))
    found = older.route(embeddings=queries, policy=CostPolicy(within=0.1))
    expected = router.route(embeddings=queries, policy=CostPolicy(within=0.1, costs="models"))
    assert_array_equal(found.cost_usd, expected.cost_usd)
    with pytest.raises(ValueError, match="saved without the costs of records: fit it again"):
        older.route(embeddings=queries, policy=CostPolicy(costs="records"))


def test_the_first_source_that_is_known_is_used(priced):
    _, table, queries = priced
    rows = unit_rows(60, 4)

    def costs(table, **policy):
        made = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,)))
        policy = CostPolicy(output_tokens=100, **policy)
        tokens = np.full(len(queries), 1000)
        return made.route(embeddings=queries, policy=policy, tokens=tokens).cost_usd

    assert_array_equal(costs(table), costs(table, costs="records"))
    assert not np.array_equal(costs(table), costs(table, costs="models"))
    bare = replace(table, cost_usd=None)
    assert_array_equal(costs(bare), costs(table, costs="prices"))
    one_unknown = table.cost_usd.copy()
    one_unknown[:, 2] = NAN
    assert_array_equal(costs(replace(table, cost_usd=one_unknown)), costs(bare))


def test_prices_times_tokens():
    prices = np.array([[2.0, 8.0], [0.5, 0.5]])
    found = price_of(prices, np.array([1000, 0]), 250.0)
    assert_allclose(found, [[0.002 + 0.002, 0.000625], [0.002, 0.000125]])
    texts = ["", "four", "fives", "ünï", "日本語", "ab\ud800"]
    expected = [0, 1, 2, 2, 3, 2]  # a fourth of 0, 4, 5, 5, 9, 5 bytes
    assert_array_equal(estimate_tokens(texts), expected)


def test_prompts_tell_their_tokens(priced):
    router, _, queries = priced
    policy = CostPolicy(costs="prices", output_tokens=0.0, cost_weight=INF)
    found = router.route(["x" * 4000, "x" * 8], embeddings=queries[:2], policy=policy)
    assert_allclose(found.cost_usd, [1000 * 0.5e-6, 2 * 0.5e-6], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "policy", "words"),
    [
        (
            {"cost": [2], "price": [1, 3]},
            {},
            "no cost is recorded for model 2; no prices for model 1, model 3. Fit on a table",
        ),
        ({"cost": [2]}, {"costs": "records"}, "no cost is recorded for model 2$"),
        ({"cost": [0, 2]}, {"costs": "models"}, "no cost is recorded for model 0, model 2"),
        ({"cost": [0], "price": []}, {}, "takes output_tokens, the expected tokens"),
        (
            {"price": [3]},
            {"costs": "prices", "output_tokens": 1},
            "no prices are known for model 3",
        ),
        ({}, {"costs": "prices", "output_tokens": 1}, "pass tokens, or the prompts"),
    ],
)
def test_an_unknown_cost_is_an_error_that_names_the_model(priced, fields, policy, words):
    _, table, queries = priced
    cost, prices = table.cost_usd.copy(), table.prices.copy()
    cost[:, fields.get("cost", [])] = NAN
    prices[fields.get("price", []), 1] = NAN
    table = replace(table, cost_usd=cost, prices=prices)
    router = Router.fit(table, embeddings=unit_rows(60, 4), settings=Settings(label_shares=(0.0,)))
    with pytest.raises(ValueError, match=words):
        router.route(embeddings=queries, policy=CostPolicy(**policy))


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        ([1, 2], TypeError, "tokens must be an array of integers, got list"),
        (np.array([1.0, 2.0]), TypeError, "array of integers, got float64"),
        (np.array([1]), ValueError, r"tokens have shape \(1,\), expected \(2,\)"),
        (np.array([1, -1]), ValueError, "tokens must be at least 0, got -1"),
    ],
)
def test_bad_tokens(priced, tokens, error, words):
    router, _, queries = priced
    policy = CostPolicy(costs="prices", output_tokens=1)
    with pytest.raises(error, match=words):
        router.route(embeddings=queries[:2], policy=policy, tokens=tokens)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"cost_weight": -1.0}, ValueError, "cost_weight must be at least 0, got -1.0"),
        ({"budget_usd": NAN}, ValueError, "budget_usd must be at least 0, got nan"),
        ({"within": "0.1"}, ValueError, "within must be a number or 'auto', got '0.1'"),
        ({"max_cost_usd": True}, TypeError, "max_cost_usd must be a number, got bool"),
        ({"min_success": 1.5}, ValueError, r"min_success must lie in \[0, 1\], got 1.5"),
        ({"output_tokens": INF}, ValueError, "output_tokens must be finite"),
        ({"costs": "list"}, ValueError, "costs must be one of .*, got 'list'"),
        (
            {"cost_weight": 1.0, "within": 0.1},
            ValueError,
            "at most one of .*, got cost_weight and within",
        ),
    ],
)
def test_bad_policies(fields, error, words):
    with pytest.raises(error, match=words):
        CostPolicy(**fields)


def test_a_stream_has_no_budget_and_a_weight_needs_one(priced):
    router, _, queries = priced
    with pytest.raises(ValueError, match="find the cost weight first"):
        list(router.route_stream([(None, queries)], policy=CostPolicy(budget_usd=1.0)))
    with pytest.raises(ValueError, match="the policy has none: budget_usd"):
        router.find_cost_weight([(None, queries)], CostPolicy())


# --- explained -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["auto", "mean", "raw", "s3"])
@pytest.mark.parametrize("costs", ["records", "models", "prices"])
def test_an_explanation_is_of_the_decision_that_route_makes(rule, costs):
    table, rows = draw_table(3)
    router = Router.fit(
        table,
        embeddings=rows,
        threads=1,
        settings=Settings(label_shares=(0.0,), fallback="model 2", kappa=7),
    )
    queries = np.concatenate([unit_rows(12, 4, seed=9), -np.eye(4, dtype=np.float32)[:2]])
    tokens = np.arange(14) * 90
    for objective in OBJECTIVES:
        policy = CostPolicy(costs=costs, output_tokens=500, **objective)
        found = router.route(embeddings=queries, rule=rule, policy=policy, tokens=tokens)
        shown = [
            router.explain(embedding=q, rule=rule, policy=policy, tokens=int(n))
            for q, n in zip(queries, tokens, strict=True)
        ]
        assert [s.model for s in shown] == found.names()
        assert_array_equal([s.fallback for s in shown], found.fallback)
        assert_allclose([s.score for s in shown], found.score)
        assert_allclose([s.margin for s in shown], found.margin)
        assert_allclose(
            [s.cost_usd[m] for s, m in zip(shown, found.model, strict=True)], found.cost_usd
        )
        assert_array_equal([s.over_limit for s in shown], found.over_limit)
        if rule == "auto":
            for name in ("chance", "chance_low", "chance_high"):
                told = [getattr(s, name)[m] for s, m in zip(shown, found.model, strict=True)]
                assert_allclose(getattr(found, name), told, rtol=1e-6)
        weight = policy.cost_weight
        for s, m in zip(shown, found.model.tolist(), strict=True):
            assert s.model in s.reason
            assert (s.chance is None) == (rule != "auto" and policy.min_success is None)
            assert (s.utility is None) == (weight is None or weight == INF)
            if s.utility is None:
                continue
            if not s.fallback and rule != "auto":  # which may keep the best on average
                assert_allclose(s.utility, np.float32(s.scores) - weight * s.cost_usd, rtol=1e-12)
            cap = INF if policy.max_cost_usd is None else policy.max_cost_usd
            allowed = s.cost_usd <= (s.cost_usd[router._fit.fallback] if s.fallback else INF)
            allowed &= s.cost_usd <= max(cap, s.cost_usd.min())
            assert allowed[m] and s.utility[m] == s.utility[allowed].max()
            json.dumps(s.to_dict(), allow_nan=False)


def of_three(**fields):
    """A router that predicts 0.9, 0.8 and 0.5 at any prompt, at a cost of 4, 1 and 0.5 US$."""
    scores = np.broadcast_to([0.9, 0.8, 0.5], (30, 3))
    cost = np.broadcast_to(np.float32([4, 1, 0.5]), (30, 3)).copy()
    fields = {"cost_usd": cost, **fields}
    table = make_table(scores, np.arange(30) % 3, models=("dear", "fair", "cheap"), **fields)
    return Router.fit(table, embeddings=unit_rows(30, 4), settings=Settings(label_shares=(0.0,)))


@pytest.mark.parametrize(
    ("policy", "model", "reason"),
    [
        ({}, "dear", "dear has the largest score under the rule 'mean'"),
        (
            {"cost_weight": 0.25},
            "fair",
            "fair has the largest utility, score under the rule 'mean' − λ·cost = "
            "0.800 − 0.25 × 1 = 0.550",
        ),
        ({"cost_weight": INF}, "cheap", "cheap is the cheapest model"),
        (
            {"within": 0.2},
            "fair",
            "fair is the cheapest model within 0.2 of the largest score under the rule 'mean'",
        ),
        (
            {"min_success": 0.5},
            "cheap",
            "cheap is the cheapest model whose chance of a correct answer, 0.667, exceeds 0.5",
        ),
        (
            {"min_success": 1.0, "max_cost_usd": 2},
            "fair",
            "no model's chance of a correct answer exceeds 1: fair has the largest score under the "
            "rule 'mean' of those expected to cost at most US$ 2",
        ),
        (
            {"max_cost_usd": 0.1, "cost_weight": 1},
            "cheap",
            "no model is expected to cost at most US$ 0.1: cheap is the cheapest",
        ),
    ],
)
def test_reasons_by_hand(policy, model, reason):
    router = of_three()
    router.decider.calibrations._made["mean", 5] = lambda score: score / 3 + 0.5
    row = unit_rows(1, 4, seed=1)[0]
    found = router.explain(embedding=row, rule="mean", policy=CostPolicy(**policy))
    assert (found.model, found.reason) == (model, reason)
    assert_allclose(found.cost_usd, [4, 1, 0.5])
    if policy == {"cost_weight": 0.25}:
        assert_allclose(found.utility, [-0.1, 0.55, 0.375], atol=1e-7)
        assert found.margin == pytest.approx(-0.1)  # of the scores, as in Decisions
    if "min_success" in policy:
        assert_allclose(found.chance, [0.8, 0.5 + 0.8 / 3, 0.5 + 0.5 / 3], atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "within", "reason"),
    [
        ({}, 0.0, "fair has the largest expected score"),
        (
            {},
            0.15,
            "fair is the cheapest model within 0.150 of the largest expected score, a difference "
            "that held-out records cannot tell from none",
        ),
        (
            {"within": "auto", "max_cost_usd": 2},
            0.0,
            "fair is the cheapest model within 0.000 of the largest expected score of those "
            "expected to cost at most US$ 2, a difference that held-out records cannot tell from "
            "none",
        ),
        (
            {"within": 0.2},
            0.2,
            "fair is the cheapest model within 0.2 of the largest expected score",
        ),
        ({"cost_weight": INF}, None, "fair is the cheapest model"),
    ],
)
def test_reasons_of_the_tolerance_by_hand(fields, within, reason):
    policy = CostPolicy(**fields)
    assert why("fair", 0.8, 1.0, None, policy, within, "expected score", False) == reason


def test_min_success_counts_the_chance_that_decisions_tell(priced):
    router, _, queries = priced
    costs = router._fit.cost_usd
    shown = [router.explain(embedding=q) for q in queries[:60]]
    policy = CostPolicy(min_success=0.6, costs="models")
    assert router.is_calibrated("auto", policy=policy) and not router.is_calibrated(
        "mean", policy=policy
    )
    found = router.route(embeddings=queries[:60], policy=policy)
    seen = [i for i, s in enumerate(shown) if not s.fallback and (s.chance > 0.6).any()]
    assert len(seen) > 20
    for i in seen:
        enough = np.flatnonzero(shown[i].chance > 0.6)
        assert found.model[i] == min(enough, key=lambda m: costs[m])
        assert found.chance[i] == np.float32(shown[i].chance[found.model[i]])


def test_a_far_prompt_says_so_and_what_then_counts():
    router = of_three()
    router._fit.__dict__["distance_limit"] = 0.0
    policy = CostPolicy(cost_weight=0.25)
    found = router.explain(embedding=unit_rows(1, 4, seed=1)[0], rule="mean", policy=policy)
    assert found.fallback and found.model == "fair"
    assert "lies beyond 0.000" in found.reason
    assert found.reason.endswith(
        "; of models no dearer than the fallback model, fair has the largest utility, standing on "
        "the benchmark − λ·cost = 0.800 − 0.25 × 1 = 0.550"
    )


def test_without_a_policy_costs_are_told_where_they_are_known(priced):
    router, table, queries = priced
    found = router.explain("a question", embedding=queries[0])
    policy = CostPolicy(costs="records")
    expected = router.explain("a question", embedding=queries[0], policy=policy)
    assert_array_equal(found.cost_usd, expected.cost_usd)
    assert (found.no_cost, found.utility, found.over_limit) == (None, None, None)
    assert found.to_dict()["models"][0]["cost_usd"] == found.cost_usd[0]

    def shown(rule="auto", **fields):
        made = Router.fit(
            replace(table, **fields),
            embeddings=unit_rows(60, 4),
            settings=Settings(label_shares=(0.0,)),
        )
        return made.explain("a question", embedding=queries[0], rule=rule)

    by_prices = shown(cost_usd=None)
    assert by_prices.cost_usd is None
    assert "takes output_tokens, the expected tokens of an answer" in by_prices.no_cost
    assert by_prices.to_dict()["no_cost"] == by_prices.no_cost
    nothing = shown(cost_usd=None, prices=np.full((4, 2), NAN))
    assert (nothing.cost_usd, nothing.no_cost) == (None, None)
    assert [m["cost_usd"] for m in nothing.to_dict()["models"]] == [None] * 4
    unpriced = shown("mean", cost_usd=None, prices=np.full((4, 2), NAN))
    assert unpriced.reason == router.explain(embedding=queries[0], rule="mean").reason


def test_what_explain_refuses(priced):
    router, _, queries = priced
    with pytest.raises(ValueError, match="for all prompts together, this is one: find the cost w"):
        router.explain(embedding=queries[0], policy=CostPolicy(budget_usd=1.0))
    with pytest.raises(ValueError, match="takes output_tokens"):
        router.explain("x", embedding=queries[0], policy=CostPolicy(costs="prices"))
    policy = CostPolicy(costs="prices", output_tokens=1)
    with pytest.raises(ValueError, match="pass tokens, or the prompts"):
        router.explain(embedding=queries[0], policy=policy)
    with pytest.raises(ValueError, match="tokens must be at least 0, got -1"):
        router.explain(embedding=queries[0], policy=policy, tokens=-1)


# --- the bisection -------------------------------------------------------------------------------


def test_bisection_by_hand():
    # Ten prompts, each 1 US$ dearer by the better model; prompt i gives it up at λ = i + 1.
    def total(weight):
        return 1.0 + sum(weight < i + 1 for i in range(10))

    assert cost_weight_within(11.0, total, 10) == 0.0
    assert cost_weight_within(8.5, total, 10) == pytest.approx(3.0)
    assert total(cost_weight_within(8.5, total, 10)) == 8.0
    assert total(cost_weight_within(1.0, total, 10)) == 1.0
    with pytest.raises(ValueError, match="budget_usd 0.5 is below .* cost, 1$"):
        cost_weight_within(0.5, total, 10)
    # Only without any regard for the score are the cheapest models chosen.
    assert cost_weight_within(1.5, lambda w: 1.0 if w == INF else 2.0, 1) == INF
