"""Tasks among some models and under cost policies: by hand, and against many tasks at once."""

from __future__ import annotations

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router, Settings
from benchrouter.decisions.task import SCORES

NAN = float("nan")
MODELS = ("strong", "middling", "small")


def fitted(**fields):
    """Two datasets, four records each at one place; the neighbours of a prompt are known.

    Near dataset 0 the models are right in 3, 2 and 1 of 4 records and cost 0.8, 0.2 and 0.04; near
    dataset 1 in 4, 1 and 0, at twice the cost. Means: 7/8, 3/8, 1/8 and US$ 1.2, 0.3, 0.06.
    """
    scores = [
        [1, 1, 0],
        [1, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
        [1, 1, 0],
        [1, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
    ]
    dataset = np.repeat([0, 1], 4)
    cost = np.array([0.8, 0.2, 0.04], np.float32) * (1 + dataset[:, None]).astype(np.float32)
    fields = {"cost_usd": cost, "models": MODELS, **fields}
    table = make_table(scores, dataset, **fields)
    return Router.fit(
        table, embeddings=np.eye(2, dtype=np.float32)[dataset], settings=Settings(k=4, kappa=4)
    )


@pytest.fixture(scope="module")
def router():
    return fitted()


NEAR = np.eye(2, dtype=np.float32)[[0, 0, 0]]  # S1 = 3/4, 2/4, 1/4
PER_PROMPT = [(4 * 0.8 + 1.2) / 5, (4 * 0.2 + 0.3) / 5, (4 * 0.04 + 0.06) / 5]  # .88, .22, .044


@pytest.mark.parametrize(
    ("given", "model", "reason"),
    [
        ({}, "strong", "S1 is largest for strong (0.750), also the best on average"),
        ({"within": 0.2}, "strong", "S1 is largest for strong (0.750), also the best on average"),
        (
            {"within": 0.3},
            "middling",
            "middling is the cheapest model within 0.3 of the largest S1: 0.500 for US$ 0.22 a "
            "prompt; if cost did not count it would be strong, 0.750 for US$ 0.88",
        ),
        (
            {"cost_weight": 1.0},  # -0.13, 0.28, 0.206
            "middling",
            "middling has the largest utility, S1 − λ·cost = 0.500 − 1 × 0.22 = 0.280: 0.500 for "
            "US$ 0.22 a prompt; if cost did not count it would be strong, 0.750 for US$ 0.88",
        ),
        (
            {"max_cost_usd": 0.5},
            "middling",
            "middling has the largest S1 of those expected to cost at most US$ 0.5: 0.500 for US$ "
            "0.22 a prompt; if cost did not count it would be strong, 0.750 for US$ 0.88",
        ),
        (
            {"max_cost_usd": 0.01},
            "small",
            "no model is expected to cost at most US$ 0.01: small is the cheapest: 0.250 for US$ "
            "0.044 a prompt; if cost did not count it would be strong, 0.750 for US$ 0.88",
        ),
        ({"budget_usd": 2.65}, "strong", "S1 is largest for strong (0.750), also the best on"),
        (
            {"budget_usd": 2.6},  # for 3 prompts: 0.867 each
            "middling",
            "middling has the largest S1 of those within US$ 2.6 for all prompts: 0.500 for US$ "
            "0.22 a prompt; if cost did not count it would be strong, 0.750 for US$ 0.88",
        ),
        (
            {"cost_weight": float("inf")},
            "small",
            "small is the cheapest model: 0.250 for US$ 0.044",
        ),
    ],
)
def test_a_task_by_hand(router, given, model, reason):
    found = router.choose(embeddings=NEAR, score="s1", policy=CostPolicy(**given))
    assert found.model == model and found.reason.startswith(reason)
    np.testing.assert_allclose(found.task_cost_usd, PER_PROMPT, rtol=1e-6)
    assert found.expected_cost_usd == pytest.approx(PER_PROMPT[MODELS.index(model)], rel=1e-6)
    assert found.over_limit == (given.get("max_cost_usd") == 0.01)
    assert not found.fallback
    assert (found.best_by_score, found.best_on_average) == ("strong", "strong")


def test_without_a_policy_nothing_is_told_of_costs(router):
    found = router.choose(embeddings=NEAR)
    assert found.task_cost_usd is found.expected_cost_usd is found.over_limit is None


def test_costs_are_means_over_the_prompts_by_every_source(router):
    mixed = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    far = [(4 * 1.6 + 1.2) / 5, (4 * 0.4 + 0.3) / 5, (4 * 0.08 + 0.06) / 5]
    expected = (3 * np.array(PER_PROMPT) + np.array(far)) / 4
    found = router.choose(embeddings=mixed, policy=CostPolicy())
    np.testing.assert_allclose(found.task_cost_usd, expected, rtol=1e-6)
    found = router.choose(embeddings=mixed, policy=CostPolicy(costs="models"))
    np.testing.assert_allclose(found.task_cost_usd, [1.2, 0.3, 0.06], rtol=1e-6)
    prices = {"strong": (10, 30), "middling": (1, 3), "small": (0, 0)}
    by_prices = CostPolicy(prices=prices, output_tokens=100)
    for given in (
        {"tokens": np.array([100, 200, 300, 400])},  # 250 on average
        {"prompts": ["x" * 400, "x" * 800, "x" * 1200, "x" * 1600]},
    ):
        found = router.choose(embeddings=mixed, policy=by_prices, **given)
        np.testing.assert_allclose(found.task_cost_usd, [5.5e-3, 5.5e-4, 0], rtol=1e-6)


def test_the_cheapest_model_whose_expected_accuracy_exceeds_tau(router):
    task = router.choose(embeddings=NEAR)
    accuracy = [_expected(router, name) for name in MODELS]
    assert accuracy[0] > accuracy[1] > accuracy[2]
    for tau, model in (
        (accuracy[2] - 0.01, "small"),
        (accuracy[2], "middling"),
        (accuracy[1], "strong"),
        (0.999, task.model),
    ):
        found = router.choose(embeddings=NEAR, policy=CostPolicy(min_success=tau))
        assert found.model == model
        assert (found.expected_accuracy > tau) == (tau < 0.999)
    assert found.reason == task.reason  # no model is sure enough: the best, as without a policy


def _expected(router, name):
    return router.choose(embeddings=NEAR, models=[name]).expected_accuracy


def test_a_budget_below_the_cheapest_model(router):
    words = r"budget_usd 0.1 is below what the cheapest model costs on 3 prompts, 0\.132"
    with pytest.raises(ValueError, match=words):
        router.choose(embeddings=NEAR, policy=CostPolicy(budget_usd=0.1))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("models", [["small", "middling"], ["small"]])
def test_only_models_that_are_allowed(router, score, models):
    everyone = router.choose(embeddings=NEAR, score=score)
    found = router.choose(embeddings=NEAR, score=score, models=models)
    best = "middling" if "middling" in models else "small"
    assert (found.model, found.best_by_score, found.best_on_average) == (best, best, best)
    assert found.reason.endswith("also the best on average, among the models allowed")
    assert np.isnan(found.probability)
    assert found.allowed.tolist() == [name in models for name in MODELS]
    assert everyone.allowed.all() and found.models == everyone.models
    for name in ("auto", "s1", "s2", "s3", "standing", "support"):
        np.testing.assert_array_equal(getattr(found, name), getattr(everyone, name))
    rows = {row["model"]: row["allowed"] for row in found.to_dict()["models"]}
    assert rows == {name: name in models for name in MODELS}


def test_costs_among_some_models(router):
    policy, names = CostPolicy(within=0.3), ["small", "middling"]
    found = router.choose(embeddings=NEAR, score="s1", policy=policy, models=names)
    assert found.model == "small"
    assert found.reason == (
        "small is the cheapest model within 0.3 of the largest S1: 0.250 for US$ 0.044 a prompt; "
        "if cost did not count it would be middling, 0.500 for US$ 0.22, among the models allowed"
    )


def test_one_dataset_gives_no_s3_and_the_best_on_average_is_not_outbid():
    table = make_table([[1, 1, 0], [1, 0, 0], [1, 0, 0]], [0, 0, 0], models=MODELS,
                       cost_usd=np.tile(np.float32([0.8, 0.9, 0.1]), (3, 1)))  # fmt: skip
    router = Router.fit(table, embeddings=np.eye(2, dtype=np.float32)[[0, 0, 0]])
    found = router.choose(embeddings=NEAR, score="s3", policy=CostPolicy(within=1.0))
    assert found.model == "small" and "S3 needs at least two datasets" in found.reason
    assert "small is the cheapest model within 1 of the largest S3" in found.reason
    assert router.choose(embeddings=NEAR, score="s3", policy=CostPolicy()).model == "strong"


def test_labels_and_models_and_costs_together(router):
    labels = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.float64)
    found = router.choose(None, labels, embeddings=NEAR, models=["strong", "middling"])
    assert found.model in ("strong", "middling") and found.n_labels == 3
    free = router.choose(None, labels, embeddings=NEAR, policy=CostPolicy(cost_weight=1e9))
    assert free.model == "small"


def test_costs_of_models_that_are_not_allowed_may_be_unknown():
    cost = np.tile(np.array([NAN, 0.2, 0.1], np.float32), (8, 1))
    router = fitted(cost_usd=cost)
    policy, names = CostPolicy(within=0.3), ["middling", "small"]
    with pytest.raises(ValueError, match="no cost is recorded for strong"):
        router.choose(embeddings=NEAR, policy=policy)
    found = router.choose(embeddings=NEAR, policy=policy, models=names, score="s1")
    assert found.model == "small" and np.isnan(found.task_cost_usd[0])
    assert router.route(embeddings=NEAR, policy=policy, models=names).names() == ["small"] * 3
    router.check_rule(policy=policy, models=names)
    told = router.explain(embedding=NEAR[0], policy=policy, models=names)
    assert told.model == "small" and np.isnan(told.cost_usd[0])
    ranked = router.rank(embeddings=NEAR, policy=policy, models=names)
    assert ranked.order.tolist() == [[2, 1]] * 3
    budget = CostPolicy(budget_usd=0.5)
    weight = router.find_cost_weight([(None, NEAR)], budget, models=names)
    assert weight > 0
    with pytest.raises(ValueError, match="no cost is recorded for strong"):
        router.check_rule(policy=policy)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"models": ["gone"]}, ValueError, "models: found 'gone', expected some of"),
        ({"models": []}, ValueError, "models must name at least one model, found none"),
        ({"models": "small"}, TypeError, "got a single string, 'small'"),
    ],
)
def test_names_that_are_refused(router, given, error, words):
    batches = [(["a"] * 3, None, NEAR)]
    for call in (
        lambda: router.choose(embeddings=NEAR, **given),
        lambda: router.choose_groups(batches, **given),
        lambda: router.route(embeddings=NEAR, **given),
        lambda: list(router.route_stream([(None, NEAR)], **given)),
        lambda: router.find_cost_weight([(None, NEAR)], CostPolicy(budget_usd=9.0), **given),
        lambda: router.check_rule(**given),
    ):
        with pytest.raises(error, match=words):
            call()


def test_tokens_that_are_missing(router):
    policy = CostPolicy(prices={name: (1, 1) for name in MODELS}, output_tokens=1)
    words = "pass tokens, or the prompts with their embeddings"
    with pytest.raises(ValueError, match=words):
        router.choose(embeddings=NEAR, policy=policy)
    with pytest.raises(ValueError, match=words):
        router.choose_groups([(["a"] * 3, None, NEAR)], policy=policy)
    with pytest.raises(ValueError, match="4 tokens came with 3 prompts"):
        router.choose_groups([(["a"] * 3, None, NEAR, np.arange(4))], policy=policy)
    groups = [(["a"] * 3, None, NEAR, np.array([1, 2, 6]))]
    ((_, found),) = router.choose_groups(groups, policy=policy)
    np.testing.assert_allclose(found.task_cost_usd, [4e-6] * 3, rtol=1e-6)


# --- many tasks -----------------------------------------------------------------------------------

POLICIES = [
    None,
    {},
    {"cost_weight": 5.0},
    {"cost_weight": float("inf")},
    {"within": 0.1},
    {"min_success": 0.5},
    {"max_cost_usd": 0.02},
    {"max_cost_usd": 0.0, "within": 0.2},
    {"costs": "models", "cost_weight": 10.0},
    {"prices": True, "output_tokens": 100.0, "within": 0.1},
]


@pytest.fixture(scope="module")
def many():
    """A router of five models, and 90 prompts of seven tasks in disorder."""
    rng = np.random.default_rng(4)
    dataset = np.repeat(np.arange(4), 30)
    rows = np.eye(4, dtype=np.float32)[dataset] + 0.4 * unit_rows(120, 4, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = (rng.random((120, 5)) < rng.uniform(0.2, 0.9, (4, 5))[dataset]).astype(np.float32)
    cost = (rng.random((120, 5)) * 0.01 * 2.0 ** np.arange(5)).astype(np.float32)
    router = Router.fit(
        make_table(scores, dataset, cost_usd=cost), embeddings=rows, settings=Settings(draws=2)
    )
    groups = [f"task {g}" for g in rng.integers(0, 7, 90)]
    prompts = np.eye(4, dtype=np.float32)[[int(g[-1]) % 4 for g in groups]]
    prompts = prompts + 0.5 * unit_rows(90, 4, seed=2)
    return router, groups, prompts / np.linalg.norm(prompts, axis=1, keepdims=True)


def policy_of(given):
    if given is None:
        return None
    if given.get("prices"):
        given = {**given, "prices": {f"model {m}": (m + 1, 2 * m) for m in range(5)}}
    return CostPolicy(**given)


def batches_of(groups, rows, tokens):
    for start in range(0, len(rows), 13):
        here = slice(start, start + 13)
        yield groups[here], None, rows[here], tokens[here]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("given", POLICIES)
@pytest.mark.parametrize("models", [None, ["model 1", "model 3", "model 4"]])
def test_every_group_is_decided_as_its_task_alone(many, score, given, models):
    router, groups, rows = many
    tokens, policy = np.arange(90) * 10, policy_of(given)
    options = {"score": score, "models": models, "policy": policy}
    found = dict(router.choose_groups(batches_of(groups, rows, tokens), **options))
    assert list(found) == list(dict.fromkeys(groups))
    for group, decision in found.items():
        own = np.array([g == group for g in groups])
        alone = router.choose(embeddings=rows[own], tokens=tokens[own], **options)
        for name in ("model", "fallback", "best_by_score", "best_on_average", "over_limit"):
            assert getattr(decision, name) == getattr(alone, name), name
        assert decision.model in (models or router.models)
        if policy is None:
            assert decision.task_cost_usd is alone.task_cost_usd is None
        else:
            np.testing.assert_allclose(decision.task_cost_usd, alone.task_cost_usd, rtol=2e-7)


@pytest.mark.parametrize("score", ["auto", "s1", "s3"])
def test_a_budget_is_for_all_groups_together(many, score):
    router, groups, rows = many
    tokens = np.zeros(90, np.int64)

    def total(policy):
        found = dict(
            router.choose_groups(batches_of(groups, rows, tokens), score=score, policy=policy)
        )
        value = sum(
            d.n_prompts * getattr(d, score)[router.models.index(d.model)] for d in found.values()
        )
        return sum(d.n_prompts * d.expected_cost_usd for d in found.values()), value

    best_usd, best = total(CostPolicy())
    least_usd, least = total(CostPolicy(cost_weight=float("inf")))
    assert least_usd < best_usd and least < best
    value_before = least
    for share in (0.05, 0.3, 0.6, 0.9, 1.0):
        budget = least_usd + share * (best_usd - least_usd)
        spent, value = total(CostPolicy(budget_usd=budget))
        assert least_usd <= spent <= budget * (1 + 1e-6)
        # S3's fallback keeps models of a smaller S3, which cost more than others.
        assert score == "s3" or value >= value_before - 1e-9
        value_before = value
    assert (spent, value) == pytest.approx((best_usd, best))
    with pytest.raises(ValueError, match="is below what the cheapest models cost"):
        total(CostPolicy(budget_usd=0.9 * least_usd))


def test_a_model_kept_by_eq_8_gives_way_to_cheaper_ones_only(many):
    """S3's fallback holds under a policy: nothing dearer than the best on average is taken."""
    router, _, rows = many
    kept = [row[None] for row in rows if router.choose(embeddings=row[None], score="s3").fallback]
    assert len(kept) > 5
    gave_way = 0
    for row in kept:
        plain = router.choose(embeddings=row, score="s3")
        for given in ({}, {"within": 1.0}, {"cost_weight": 3.0}, {"max_cost_usd": 0.03}):
            found = router.choose(embeddings=row, score="s3", policy=CostPolicy(**given))
            average = found.models.index(plain.model)
            assert found.expected_cost_usd <= found.task_cost_usd[average]
            assert found.fallback == (found.model == plain.model)
            if not given:
                assert found.model == plain.model
            if found.model != plain.model:
                gave_way += 1
                assert found.reason.startswith(plain.reason + "; ")
    assert gave_way > 5
