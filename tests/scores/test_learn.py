"""What the rule auto learns from held-out records, and what it does with it."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchrouter import BenchmarkTable, Router
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import CostPolicy, Policy
from benchrouter.evaluation.prompts.calibration import reliability
from benchrouter.scores.expected.regression import least_squares, logistic

METHOD = Path(__file__).resolve().parents[2] / "docs" / "method.md"


def bench(skill, n=120, dim=16, seed=0, spread=0.6, cost_usd=None, continuous=False):
    """Datasets around centres of their own; skill[d, m] is how often model m is right on d."""
    skill = np.asarray(skill, np.float64)
    n_datasets, n_models = skill.shape
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(n_datasets, dtype=np.int32), n)
    centres = rng.normal(size=(n_datasets, dim))
    rows = centres[dataset] + spread * rng.normal(size=(len(dataset), dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    chance = skill[dataset]
    found = chance if continuous else rng.random(chance.shape) < chance
    costs = None
    if cost_usd is not None:
        costs = np.broadcast_to(np.asarray(cost_usd, np.float32), chance.shape).copy()
    table = BenchmarkTable(
        scores=np.asarray(found, np.float32),
        dataset=dataset,
        datasets=tuple(f"d{i}" for i in range(n_datasets)),
        models=tuple("abcdefgh"[:n_models]),
        sample_ids=[str(i) for i in range(len(dataset))],
        prompts=[f"prompt {i}" for i in range(len(dataset))],
        source_rows=np.arange(len(dataset)),
        n_source_rows=len(dataset),
        params_b=np.full(n_models, np.nan),
        prices=np.full((n_models, 2), np.nan),
        metrics=("accuracy",) * n_datasets,
        thresholds=np.full(n_datasets, 0.5),
        cost_usd=costs,
    )
    return table, rows


def specialists(n_datasets=8):
    """a is best on even datasets, b on odd ones, c is the best on average and nowhere first."""
    even = np.arange(n_datasets) % 2 == 0
    return np.stack(
        [np.where(even, 0.9, 0.2), np.where(even, 0.2, 0.9), np.full(n_datasets, 0.6)], 1
    )


def test_specialists_are_found_where_records_are_near():
    table, rows = bench(specialists())
    router = Router.fit(table, embeddings=rows)
    assert router.best_on_average == "c"
    decisions = router.route(embeddings=rows)
    best = np.where(table.dataset % 2 == 0, 0, 1)
    assert (decisions.model == best).mean() > 0.97
    known = router._fit.expectation
    assert known.margin[0] == 0.0 and known.apart[0].sum() > 0.8


def test_a_prompt_unlike_all_records_goes_to_the_best_on_average():
    table, rows = bench(specialists())
    router = Router.fit(table, embeddings=rows)
    far = -rows[:50]
    assert set(router.route(embeddings=far).names()) == {"c"}


def test_datasets_that_share_nothing_teach_to_stay_with_the_best_on_average():
    """Skills are drawn anew on every dataset: the neighbours of a strange prompt say nothing."""
    rng = np.random.default_rng(3)
    skill = np.clip(0.5 + 0.15 * rng.normal(size=(10, 4)), 0, 1)
    skill[:, 0] += 0.2
    table, rows = bench(np.clip(skill, 0, 1), seed=3)
    learnt = Router.fit(table, embeddings=rows)._fit.expectation
    assert np.isinf(learnt.margin[1])
    assert learnt.apart[1].sum() < learnt.apart[0].sum()


def test_one_leader_is_kept_everywhere():
    table, rows = bench(np.tile([0.9, 0.3, 0.3, 0.3], (6, 1)))
    router = Router.fit(table, embeddings=rows)
    assert set(router.route(embeddings=rows).names()) == {"a"}


def test_noise_alone_leaves_the_standings_alone():
    table, rows = bench(np.full((6, 4), 0.5), seed=5)
    learnt = Router.fit(table, embeddings=rows)._fit.expectation
    assert learnt.apart.sum(axis=1).max() < 0.35


@pytest.mark.parametrize("n_datasets", [1, 2, 3])
def test_few_datasets(n_datasets):
    table, rows = bench(specialists(n_datasets))
    router = Router.fit(table, embeddings=rows)
    learnt = router._fit.expectation
    decisions = router.route(embeddings=rows)
    assert np.isfinite(decisions.score).all()
    assert_array_equal(learnt.apart[1], np.zeros(4)) if n_datasets < 3 else None
    if n_datasets == 1:  # every prompt is of the one kind
        assert learnt.gate[0] == -40.0
        assert_array_equal(learnt.margin[:1], learnt.margin[1:])


def test_missing_scores_and_continuous_scores():
    table, rows = bench(specialists(), continuous=True)
    holes = np.random.default_rng(0).random(table.scores.shape) < 0.3
    found = np.where(holes, np.nan, table.scores).astype(np.float32)
    router = Router.fit(replace(table, scores=found), embeddings=rows)
    best = np.where(table.dataset % 2 == 0, 0, 1)
    assert (router.route(embeddings=rows).model == best).mean() > 0.97


def test_scores_without_a_threshold_have_no_chance_of_success():
    table, rows = bench(specialists(), continuous=True)
    scaled = replace(table, scores=table.scores * 100 - 30, thresholds=np.full(8, np.nan))
    router = Router.fit(scaled, embeddings=rows)
    plain = Router.fit(table, embeddings=rows)
    assert router._fit.expectation.calibration is None
    assert not router._fit.expectation.unit
    # Another unit of the scores changes no decision.
    assert_array_equal(router.route(embeddings=rows).model, plain.route(embeddings=rows).model)


def test_the_cheaper_of_two_that_records_cannot_tell_apart_is_taken():
    """b is right a little more often than a, by less than so few records can tell, and is dear."""
    for seed in range(50):
        dear, rows = bench(np.full((6, 2), 0.75), cost_usd=[0.2, 0.9], seed=seed)
        gap = dear.scores[:, 1].mean() - dear.scores[:, 0].mean()
        if 0.0 < gap < 0.005:
            break
    router = Router.fit(dear, embeddings=rows)
    learnt = router._fit.expectation
    assert 0.0 < gap < learnt.tolerance.min()
    decisions, ranking = router.route(embeddings=rows), router.rank(embeddings=rows)
    lead = ranking.scores[:, 1] - ranking.scores[:, 0]
    told = np.where(
        router.decider.backend.score(rows, plan_of(router._fit, Policy())).strange > 0.5,
        *learnt.tolerance[::-1],
    )
    near = np.abs(lead - told) > 1e-6  # where rounding decides nothing
    assert_array_equal((decisions.model == 1)[near], (lead > told)[near])
    assert (decisions.model == 0).mean() > 0.6
    free = Router.fit(replace(dear, cost_usd=None), embeddings=rows).route(embeddings=rows)
    off = router.route(embeddings=rows, policy=CostPolicy(within=0.0))
    assert_array_equal((free.model == 1)[lead != 0], (lead > 0)[lead != 0])
    assert_array_equal(off.model, free.model)
    auto = router.route(embeddings=rows, policy=CostPolicy(within="auto"))
    assert_array_equal(auto.model, router.route(embeddings=rows).model)


def test_within_auto_is_for_the_rule_auto():
    table, rows = bench(specialists(), cost_usd=[1, 1, 1])
    router = Router.fit(table, embeddings=rows)
    with pytest.raises(ValueError, match="within 'auto' is for the rule 'auto'.*'mean'"):
        router.route(embeddings=rows, rule="mean", policy=CostPolicy(within="auto"))
    with pytest.raises(ValueError, match="within must be a number or 'auto', got 'some'"):
        CostPolicy(within="some")


def test_k_is_not_for_the_rule_auto():
    table, rows = bench(specialists())
    router = Router.fit(table, embeddings=rows)
    with pytest.raises(ValueError, match="k is for the rules 'mean', 'raw' and 's3'"):
        router.route(embeddings=rows, k=10)


def test_pulls_and_standing_add_up_to_the_scores():
    table, rows = bench(specialists(), seed=2)
    router = Router.fit(table, embeddings=rows)
    for row in rows[::97]:
        why = router.explain(embedding=row)
        assert_allclose(why.standing + sum(why.pulls.values()), why.scores, atol=2e-6)
        assert len(why.neighbours) == min(10, why.n_voting)
        assert_allclose([n.weight for n in why.neighbours], 1.0 / why.n_voting)


def test_the_chance_rises_with_the_score_and_lies_in_its_interval():
    table, rows = bench(specialists(), seed=4)
    learnt = Router.fit(table, embeddings=rows)._fit.expectation
    score = np.linspace(0, 1, 21)
    for strange in (0.0, 0.5, 1.0):
        chance = learnt.chance(score, np.array(strange))
        assert (np.diff(chance) >= 0).all() and ((chance > 0) & (chance < 1)).all()
        low, high = learnt.interval(chance, np.array(strange))
        assert ((low <= chance) & (chance <= high)).all()


def test_the_chance_comes_true_on_new_prompts_of_known_kinds():
    table, rows = bench(specialists(), n=400, seed=6)
    held = np.arange(table.n_records) % 2 == 0
    router = Router.fit(table.rows(np.flatnonzero(held)), embeddings=rows[held])
    learnt = router._fit.expectation
    ranking = router.rank(embeddings=rows[~held])
    strange = router.decider.backend.score(rows[~held], plan_of(router._fit, Policy())).strange
    chance = learnt.chance(ranking.scores, strange[:, None])
    right = table.scores[~held]
    assert reliability(chance, right).ece < 0.04
    here, model = np.arange(len(right)), ranking.decisions.model
    assert reliability(chance[here, model], right[here, model], bins=5).ece < 0.05


def test_the_same_table_in_another_order_teaches_the_same():
    table, rows = bench(specialists(), seed=7)
    order = np.random.default_rng(0).permutation(table.n_records)
    one = Router.fit(table, embeddings=rows)._fit.expectation
    other = Router.fit(table.rows(order), embeddings=rows)._fit.expectation  # aligned by row
    for name in ("standing", "share", "apart", "level", "gate", "margin", "tolerance", "spread"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-6)


def test_records_added_without_compacting_vote_at_once(tmp_path):
    table, rows = bench(specialists(), seed=8)
    first = np.arange(table.n_records) % 3 > 0
    router = Router.fit(table.rows(np.flatnonzero(first)), embeddings=rows[first])
    before = router._fit.expectation
    rest = np.flatnonzero(~first)
    router.add_records(table.rows(rest), embeddings=rows[rest], compact=False)
    after = router._fit.expectation
    assert_array_equal(after.apart, before.apart)
    assert len(after.own_distance) == table.n_records
    assert np.isfinite(after.own_distance).all()
    why = router.explain(embedding=rows[rest[0]])
    assert why.neighbours[0].sample_id == str(rest[0])
    router.compact()
    fresh = Router.fit(router.table, embeddings=router._fit.embeddings)
    for name in ("apart", "level", "gate", "own_distance", "weights", "of_dataset"):
        assert_array_equal(
            getattr(router._fit.expectation, name), getattr(fresh._fit.expectation, name)
        )


def test_what_is_learnt_is_saved():
    table, rows = bench(specialists(), seed=9)
    router = Router.fit(table, embeddings=rows)
    learnt = router._fit.expectation
    again = type(learnt).from_dict(
        learnt.to_dict(),
        weights=learnt.weights,
        offset=learnt.offset,
        of_dataset=learnt.of_dataset,
        own_distance=learnt.own_distance,
    )
    for name, value in vars(learnt).items():
        assert_array_equal(getattr(again, name), value, err_msg=name)


def test_least_squares_in_a_box():
    """Solutions by hand: free, at 0, and at the largest weight."""
    gram = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert_allclose(least_squares(gram, np.array([1.0, 0.5]), 1.5), [0.5, 0.5])
    assert_allclose(least_squares(gram, np.array([-1.0, 3.0]), 1.5), [0.0, 1.5])
    together = np.array([[1.0, 0.9], [0.9, 1.0]])  # w₁ alone explains all: 1 = 1·w₁ + 0.9·w₂
    assert_allclose(least_squares(together, np.array([1.0, 0.9]), 1.5), [1.0, 0.0], atol=1e-9)
    assert_array_equal(least_squares(np.zeros((2, 2)), np.ones(2), 1.5), [0.0, 0.0])


def test_logistic_regression():
    """A constant alone finds the log-odds of the weighted mean; a large penalty keeps the prior."""
    ones, outcome = np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0])
    weight, none = np.array([1.0, 1.0, 1.0, 1.0]), np.zeros(1)
    assert_allclose(logistic(ones, outcome, weight, none, none), [np.log(3)], atol=1e-9)
    doubled = np.array([1.0, 1.0, 1.0, 3.0])
    assert_allclose(logistic(ones, outcome, doubled, none, none), [0.0], atol=1e-9)
    kept = logistic(ones, outcome, weight, np.array([0.3]), np.array([1e9]))
    assert_allclose(kept, [0.3], atol=1e-6)


def test_the_example_of_the_method_page():
    text = METHOD.read_text(encoding="utf-8")
    results = doctest.testfile(str(METHOD), module_relative=False)
    assert results.attempted > 5 and results.failed == 0
    for figure in ("0.7748", "0.3513"):  # in the prose, and as the code says
        assert text.count(figure) == 2
