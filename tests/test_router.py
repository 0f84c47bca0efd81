"""The router end to end: worked examples, labels, explanations, bad input, threads."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import Router
from benchrouter.neighbours.index import Index
from benchrouter.scores.fitted import Settings
from benchrouter.votes.outcomes import unpack

NAN = float("nan")


@pytest.fixture(scope="module")
def compass():
    """Four clusters, one per dataset; model 0 knows north and east, model 1 south, 2 is fair."""
    directions = np.repeat(np.eye(4, dtype=np.float32), 40, axis=0)
    rows = directions + 0.25 * unit_rows(160, 4, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    skill = np.array([[0.95, 0.05, 0.55], [0.9, 0.1, 0.55], [0.05, 0.95, 0.55], [0.1, 0.1, 0.55]])
    dataset = np.repeat(np.arange(4), 40)
    rng = np.random.default_rng(0)
    scores = (rng.random((160, 3)) < skill[dataset]).astype(np.float32)
    table = make_table(
        scores,
        dataset,
        datasets=("east", "north", "south", "west"),
        models=("northern", "southern", "steady"),
        params_b=np.array([7.0, 13.0, 70.0]),
    )
    return table, rows


@pytest.fixture(scope="module")
def router(compass):
    table, rows = compass
    return Router.fit(table, embeddings=rows, settings=Settings(k=5, kappa=7))


def at(*vector):
    row = np.array([vector], dtype=np.float32)
    return row / np.linalg.norm(row)


def test_route_sends_prompts_where_the_neighbours_were_right(router):
    assert router.best_on_average == "steady"
    queries = np.concatenate([at(1, 0, 0, 0), at(0, 0, 1, 0), at(0, 0, 0, 1)])
    for rule in ("mean", "raw", "s3"):
        decisions = router.route(embeddings=queries, rule=rule)
        assert decisions.names()[:2] == ["northern", "southern"], rule
        assert len(decisions) == 3
        assert decisions.model.dtype == np.int32
        assert decisions.score.dtype == decisions.margin.dtype == np.float32
        assert not decisions.fallback.any()
        assert (decisions.margin >= 0).all()


def test_the_mean_rule_by_hand(router, compass):
    table, rows = compass
    query = at(0.2, 0.1, 0.9, 0.3)
    nearest = np.argsort(-(rows.astype(np.float64) @ query[0].astype(np.float64)))[:5]
    standing = np.array([table.scores[table.dataset == d].mean(axis=0) for d in range(4)]).mean(0)
    by_hand = (table.scores[nearest].sum(axis=0) + standing) / 6
    explained = router.explain(embedding=query[0], rule="mean")
    np.testing.assert_allclose(explained.scores, by_hand, rtol=0, atol=1e-6)
    assert explained.score == pytest.approx(by_hand.max(), abs=1e-6)
    assert explained.margin == pytest.approx(np.sort(by_hand)[-1] - np.sort(by_hand)[-2], abs=1e-6)
    raw = router.explain(embedding=query[0], rule="raw", k=10)
    nearest = np.argsort(-(rows.astype(np.float64) @ query[0].astype(np.float64)))[:10]
    np.testing.assert_allclose(raw.scores, table.scores[nearest].mean(axis=0), rtol=0, atol=1e-6)


def test_the_chance_and_its_interval_by_hand(router):
    # logit slope 1, intercept 0 for known prompts: the chance is the score; log 3 for strange ones
    learnt = dataclasses.replace(
        router._fit.expectation,
        calibration=np.array([[1.0, 0.0], [1.0, np.log(3.0)]]),
        spread=np.array([0.1, 0.3]),
        unit=True,
    )
    found = learnt.success(np.float32([0.8, 0.5, 0.8]), np.float32([0.0, 1.0, 0.5]))
    # odds of 4; of 1 × 3; of 4 × √3
    chance = [0.8, 0.75, 4 * np.sqrt(3) / (1 + 4 * np.sqrt(3))]
    np.testing.assert_allclose(found.chance, chance, rtol=1e-6)
    # 1.2816 × 0.1, × 0.3, × √((0.01 + 0.09) / 2); at most 1
    np.testing.assert_allclose(found.low, [0.67184, 0.36553, 0.58731], atol=1e-4)
    np.testing.assert_allclose(found.high, [0.92816, 1.0, 1.0], atol=1e-4)
    assert {values.dtype for values in found} == {np.dtype(np.float32)}
    assert dataclasses.replace(learnt, calibration=None).success(found.low, found.low) is None


def test_decisions_tell_the_chance_that_explain_shows(router, compass):
    _, rows = compass
    queries = np.concatenate([rows[::20], unit_rows(10, 4, seed=3)])
    found = router.route(embeddings=queries)
    assert found.fallback.any() or len(set(found.model.tolist())) > 1
    streamed = list(router.route_stream([(None, queries[:5]), (None, queries[5:])]))
    for name in ("chance", "chance_low", "chance_high"):
        shown = [router.explain(embedding=q) for q in queries]
        told = [getattr(s, name)[m] for s, m in zip(shown, found.model.tolist(), strict=True)]
        np.testing.assert_allclose(getattr(found, name), told, rtol=1e-6)
        together = np.concatenate([getattr(part, name) for part in streamed])
        np.testing.assert_array_equal(together, getattr(found, name))
    assert (found.chance_low <= found.chance).all() and (found.chance <= found.chance_high).all()
    for rule in ("mean", "raw", "s3"):
        assert router.route(embeddings=queries, rule=rule).chance is None


def test_a_far_prompt_falls_back_and_says_why(compass):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(fallback="southern"))
    assert not router.route(embeddings=at(1, 0, 0, 0)).fallback[0]
    far = at(-1, -1, -1, -1)
    decisions = router.route(embeddings=far)
    assert decisions.fallback[0]
    assert decisions.names() == ["southern"]
    explained = router.explain(embedding=far[0])
    assert explained.fallback
    assert "beyond" in explained.reason
    assert "99th percentile" in explained.reason
    assert explained.model == "southern"


def test_explain_shows_who_was_right(router, compass):
    table, rows = compass
    explained = router.explain(embedding=rows[3], rule="mean")
    first = explained.neighbours[0]
    assert (first.dataset, first.sample_id, first.prompt) == ("east", "sample 3", "prompt 3")
    assert first.similarity == pytest.approx(1.0, abs=1e-6)
    assert list(first.scores.values()) == table.scores[3].tolist()
    assert len(explained.neighbours) == 5
    assert explained.support.tolist() == [5, 5, 5]
    content = json.loads(json.dumps(explained.to_dict(), allow_nan=False))
    assert content["neighbours"][0]["sample_id"] == "sample 3"
    assert explained.model == router.route(embeddings=rows[3:4], rule="mean").names()[0]


@pytest.mark.parametrize("t", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_explain_agrees_with_route_for_every_rule(compass, t):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(threshold=t, label_shares=(0.0,)))
    queries = unit_rows(60, 4, seed=5)
    for rule in ("mean", "raw", "s3"):
        decisions = router.route(embeddings=queries, rule=rule)
        for i, query in enumerate(queries):
            explained = router.explain(embedding=query, rule=rule)
            assert explained.model == decisions.names()[i]
            assert explained.score == pytest.approx(float(decisions.score[i]), abs=1e-6)
            assert explained.distance == pytest.approx(float(decisions.distance[i]), abs=1e-6)
            if not explained.fallback:
                assert explained.scores.max() == pytest.approx(explained.score, abs=1e-6)


def test_choose_for_a_task(router):
    task = at(0, 0, 1, 0) + 0.2 * unit_rows(40, 4, seed=9)
    task = (task / np.linalg.norm(task, axis=1, keepdims=True)).astype(np.float32)
    decision = router.choose(embeddings=task, score="s3")
    assert decision.model == decision.best_by_score == "southern"
    assert not decision.fallback
    assert decision.probability > 0.6
    assert decision.best_on_average == "steady"
    assert "southern" in decision.reason
    assert decision.warning is None
    assert decision.support.tolist() == [40, 40, 40]
    assert decision.s1.argmax() == decision.s2.argmax() == 1
    np.testing.assert_allclose(
        decision.s3,
        decision.s2 * decision.p_hat + (1 - decision.s2) * (1 - decision.p_hat),
        rtol=1e-12,
    )
    assert decision.benchmark_distances.shape == (4,)
    content = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert [m["model"] for m in content["models"]] == ["northern", "southern", "steady"]
    assert router.choose(embeddings=task, score="s1").model == "southern"
    assert router.choose(embeddings=task, score="s2").model == "southern"


def test_a_task_without_evidence_keeps_the_best_on_average(compass):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(eta=1.0))
    decision = router.choose(embeddings=rows[:40], score="s3")
    assert decision.best_by_score == "northern"
    assert decision.model == "steady"
    assert decision.fallback
    assert "steady is kept" in decision.reason


def test_a_task_far_from_the_benchmark_warns(router):
    decision = router.choose(embeddings=np.repeat(at(-1, -1, -1, -1), 5, axis=0))
    assert decision.distance > decision.benchmark_distances.max()
    assert "beyond every benchmark dataset's" in decision.warning


def test_labels_join_the_neighbours_and_measure_p(router, compass):
    table, rows = compass
    task = at(-1, -1, 0, 0) + 0.2 * unit_rows(60, 4, seed=3)
    task = (task / np.linalg.norm(task, axis=1, keepdims=True)).astype(np.float32)
    labels = np.tile(np.array([[0.0, 1.0, 0.0]]), (20, 1))
    without, informed = router.choose(embeddings=task), router.choose(None, labels, embeddings=task)
    assert informed.n_labels == 20
    assert informed.distance < without.distance
    assert informed.s1[1] > without.s1[1]
    assert informed.s1[1] == pytest.approx(1.0, abs=0.05)
    assert informed.model == "southern"
    # p by hand: τ·p̂ of the task with labels, then the verdicts of the benchmark alone.
    fitted = router._fit
    assert 1.0 <= fitted.tau <= 1000.0
    votes = np.array(
        [
            table.scores[np.argsort(-(rows @ query), kind="stable")[:5]].mean(axis=0)
            for query in task[:20]
        ]
    )
    right = ((votes > 0.5) == (labels > 0.5)).sum(axis=0)
    kernel = np.exp(-((informed.distance - fitted.pairs.u) ** 2) / (2 * 0.09**2))
    p_hat = (kernel[:, None] * fitted.pairs.p).sum(axis=0) / kernel.sum()
    expected = (fitted.tau * p_hat + right) / (fitted.tau + 20)
    np.testing.assert_allclose(informed.p_hat, expected, rtol=0, atol=1e-9)


def test_labels_may_be_partial_and_may_cover_all_prompts(router, compass):
    _, rows = compass
    labels = np.full((6, 3), np.nan, dtype=np.float32)
    same = router.choose(None, labels, embeddings=rows[:30])
    assert same.n_labels == 0
    np.testing.assert_array_equal(same.s1, router.choose(embeddings=rows[:30]).s1)
    labels[2] = [0.0, NAN, NAN]  # one label, of one model, on the third prompt
    one = router.choose(None, labels, embeddings=rows[:30])
    assert one.n_labels == 1
    assert one.s1[0] < same.s1[0]
    everything = np.tile(np.array([[0.0, 0.0, 1.0]]), (30, 1))
    decided = router.choose(None, everything, embeddings=unit_rows(30, 4, seed=8))
    assert decided.n_labels == decided.n_prompts == 30
    # Each prompt is scored by the other labels, never by its own.
    alone = router.choose(None, everything[:1], embeddings=unit_rows(1, 4, seed=8))
    unlabelled = router.choose(embeddings=unit_rows(1, 4, seed=8))
    np.testing.assert_array_equal(alone.s1, unlabelled.s1)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([[1, 0, 1]], TypeError, "labels must be a float array, got list"),
        (np.ones((2, 3), int), TypeError, "labels must be a float array, got int64"),
        (np.ones((2, 2)), ValueError, r"at most 4 prompts, 3 models\), got \(2, 2\)"),
        (np.ones((5, 3)), ValueError, r"at most 4 prompts, 3 models\), got \(5, 3\)"),
        (np.full((1, 3), np.inf), ValueError, "found an infinity"),
    ],
)
def test_bad_labels(router, labels, error, words):
    with pytest.raises(error, match=words):
        router.choose(None, labels, embeddings=unit_rows(4, 4))


def test_bad_input(router, compass):
    table, rows = compass
    with pytest.raises(ValueError, match="at least one prompt, found none"):
        router.choose(embeddings=unit_rows(0, 4))
    with pytest.raises(ValueError, match="must be one of 'auto', 's1', 's2', 's3', got 'best'"):
        router.choose(embeddings=rows, score="best")
    with pytest.raises(ValueError, match="one of 'auto', 'mean', 'raw', 's3', got 'vote'"):
        router.route(embeddings=rows, rule="vote")
    with pytest.raises(TypeError, match="list of strings, got a single string"):
        router.route("a prompt")
    with pytest.raises(ValueError, match="prompts or embeddings are needed"):
        router.route()
    with pytest.raises(ValueError, match="embeddings have dim 5, the router's have dim 4"):
        router.route(embeddings=unit_rows(2, 5))
    with pytest.raises(ValueError, match="2 prompts came with 3 embeddings"):
        router.route(["a", "b"], embeddings=unit_rows(3, 4))
    with pytest.raises(ValueError, match="without an encoder"):
        router.route(["a"])
    with pytest.raises(ValueError, match=r"159.*160|160.*159"):
        Router.fit(table, embeddings=rows[:159])
    with pytest.raises(ValueError, match="fallback 'unknown' is not a model"):
        Router.fit(table, embeddings=rows, settings=Settings(fallback="unknown"))
    empty = table.scores.copy()
    empty[:, 1] = np.nan
    with pytest.raises(ValueError, match="models without any score: model 1"):
        Router.fit(make_table(empty, table.dataset), embeddings=rows)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(k=0), "k must be at least 1, got 0"),
        (dict(sigma=0.0), "sigma must be above 0, got 0.0"),
        (dict(eta=1.5), r"eta must lie in \[0, 1\], got 1.5"),
        (dict(label_shares=()), "label_shares must be numbers"),
        (dict(label_shares=(1.0,)), "label_shares must be numbers"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Settings(**settings)


def test_no_prompts_give_no_decisions(router):
    assert router.route(embeddings=unit_rows(0, 4)).names() == []


def test_blocks_and_batches_change_nothing(router, monkeypatch):
    queries = unit_rows(100, 4, seed=4)
    whole = router.route(embeddings=queries, rule="s3")
    monkeypatch.setattr("benchrouter.decisions.on_cpu.BLOCK", 7)
    parts = router.route(embeddings=queries, rule="s3")
    streamed = list(router.route_stream([(None, queries[:33]), (None, queries[33:])], rule="s3"))
    for name in ("model", "score", "margin", "distance", "fallback"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
        joined = np.concatenate([getattr(d, name) for d in streamed])
        np.testing.assert_array_equal(getattr(whole, name), joined)


def test_many_threads_give_the_same_answers(router):
    queries = [unit_rows(30, 4, seed=s) for s in range(24)]

    def work(rows):
        decision = router.choose(embeddings=rows)
        routed = router.route(embeddings=rows, rule="s3")
        return decision.model, decision.s1.tolist(), routed.names(), routed.score.tolist()

    alone = [work(rows) for rows in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, queries)) == alone


def test_permuted_records_and_models_change_nothing(compass):
    table, rows = compass
    order = np.random.default_rng(2).permutation(160)
    columns = [2, 0, 1]
    permuted = make_table(
        table.scores[order][:, columns],
        table.dataset[order],
        datasets=table.datasets,
        models=tuple(table.models[m] for m in columns),
        params_b=table.params_b[columns],
    )
    queries = unit_rows(50, 4, seed=6)
    shares = (0.0,)
    one = Router.fit(table, embeddings=rows, settings=Settings(label_shares=shares))
    two = Router.fit(
        permuted, embeddings=rows[order].copy(), settings=Settings(label_shares=shares)
    )
    assert one.best_on_average == two.best_on_average
    for rule in ("mean", "raw", "s3"):
        first = one.route(embeddings=queries, rule=rule)
        second = two.route(embeddings=queries, rule=rule)
        # Equal scores fall to fewer parameters, which no order changes.
        assert first.names() == second.names()
        np.testing.assert_allclose(first.score, second.score, rtol=0, atol=1e-6)
    a, b = one.choose(embeddings=queries), two.choose(embeddings=queries)
    assert a.model == b.model
    np.testing.assert_allclose(a.s3[columns], b.s3, rtol=0, atol=1e-6)


def test_missing_scores_count_as_missing_not_as_wrong():
    scores = np.array([[1, NAN], [1, NAN], [NAN, 0], [NAN, 1]], dtype=np.float32)
    rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    router = Router.fit(
        make_table(scores, [0, 0, 0, 1]), embeddings=rows, settings=Settings(k=2, kappa=2)
    )
    explained = router.explain(embedding=rows[0], rule="raw")
    assert explained.support.tolist() == [2, 0]
    assert explained.scores[0] == 1.0
    standing = router.describe()["models"][1]["standing"]
    assert explained.scores[1] == pytest.approx(standing, abs=1e-6)
    np.testing.assert_array_equal(unpack(router._fit.raw, np.arange(4)), scores)


def test_continuous_scores_route_raw_and_vote_by_correctness():
    scores = np.array([[0.9, 0.6], [0.8, 0.7], [0.2, 0.4], [0.1, 0.3]], dtype=np.float32)
    rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    router = Router.fit(
        make_table(scores, [0, 1, 0, 1]), embeddings=rows, settings=Settings(k=2, kappa=2)
    )
    raw = router.explain(embedding=rows[0], rule="raw")
    np.testing.assert_allclose(raw.scores, [0.85, 0.65], rtol=1e-6)
    decision = router.choose(embeddings=rows[:1])
    np.testing.assert_allclose(decision.s1, [1.0, 1.0])
    nearer = router.explain(embedding=rows[2], rule="mean")
    np.testing.assert_allclose(nearer.scores, [(0.3 + 0.5) / 3, (0.7 + 0.5) / 3], rtol=1e-6)
    assert nearer.model == "model 1"


def test_a_metric_without_threshold_offers_raw_scores_only():
    scores = np.array([[-3.0, -2.0], [-1.0, -4.0], [-2.0, -2.5]], dtype=np.float32)
    rows = unit_rows(3, 4)
    table = make_table(scores, [0, 1, 1], thresholds=np.array([NAN, NAN]))
    router = Router.fit(table, embeddings=rows, settings=Settings(k=1, kappa=1))
    assert router.route(embeddings=rows, rule="raw").names() == ["model 1", "model 0", "model 0"]
    mean = router.route(embeddings=rows, rule="mean")
    assert mean.score[1] == pytest.approx((-1.0 - 2.25) / 2)
    assert mean.chance is None and router.route(embeddings=rows).chance is None
    with pytest.raises(ValueError, match="have no threshold: give thresholds"):
        router.choose(embeddings=rows)
    with pytest.raises(ValueError, match="the rule 's3' needs p̂"):
        router.route(embeddings=rows, rule="s3")


def test_one_dataset_and_one_record():
    rows = unit_rows(12, 4)
    scores = np.random.default_rng(0).integers(0, 2, (12, 2)).astype(np.float32)
    router = Router.fit(make_table(scores, np.zeros(12)), embeddings=rows)
    assert len(router.route(embeddings=rows).names()) == 12
    decision = router.choose(embeddings=rows)
    assert decision.model == router.best_on_average
    assert "fewer than two benchmark datasets" in decision.reason
    assert "needs at least two datasets" in router.choose(embeddings=rows, score="s3").reason
    assert np.isnan(decision.s3).all()
    assert router.choose(embeddings=rows, score="s1").best_by_score in router.models
    with pytest.raises(ValueError, match="the rule 's3' needs p̂"):
        router.route(embeddings=rows, rule="s3")
    single = Router.fit(make_table([[1.0, 0.0]], [0]), embeddings=rows[:1])
    assert single.route(embeddings=rows[:3]).names() == ["model 0"] * 3


def test_ties_go_to_the_cheaper_then_the_smaller_model():
    rows = np.tile(np.array([[1, 0]], dtype=np.float32), (4, 1))
    fields = dict(params_b=np.array([70.0, 7.0, 13.0]))
    table = make_table(np.ones((4, 3)), [0, 0, 1, 1], **fields)
    assert Router.fit(table, embeddings=rows).route(embeddings=rows[:1]).names() == ["model 1"]
    costs = np.tile(np.array([[2.0, 3.0, 1.0]], dtype=np.float32), (4, 1))
    table = make_table(np.ones((4, 3)), [0, 0, 1, 1], cost_usd=costs, **fields)
    router = Router.fit(table, embeddings=rows)
    assert router.route(embeddings=rows[:1]).names() == ["model 2"]
    assert router.choose(embeddings=rows[:1]).model == "model 2"


def test_half_precision_embeddings_are_widened_and_others_refused(compass):
    table, rows = compass
    router = Router.fit(table, embeddings=rows.astype(np.float16))
    assert router.route(embeddings=rows[:5].astype(np.float16)).model.shape == (5,)
    with pytest.raises(TypeError, match="float64"):
        router.route(embeddings=rows[:5].astype(np.float64))
    with pytest.raises(ValueError, match="norm"):
        router.route(embeddings=2 * rows[:5])


@pytest.fixture(scope="module")
def specialist():
    """A model that ran on the one dataset where only it was right."""
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(4), 30)
    scores = (rng.random((120, 3)) < 0.9).astype(np.float32)
    scores[dataset == 0] = [0, 0, 1]
    scores[dataset != 0, 2] = np.nan
    return make_table(scores, dataset), unit_rows(120, 8)


def test_a_standing_never_leaves_the_range_of_what_was_seen(specialist):
    table, rows = specialist
    router = Router.fit(table, embeddings=rows)
    standing = [model["standing"] for model in router.describe()["models"]]
    assert 0.0 <= min(standing) <= max(standing) <= 1.0
    queries = unit_rows(200, 8, seed=2)
    for rule in ("mean", "raw", "s3"):
        assert router.route(embeddings=queries, rule=rule).score.max() <= 1.0
    decision = router.choose(embeddings=queries)
    assert decision.s1.max() <= 1.0
    assert decision.support[2] < 200
    assert decision.best_on_average != "model 2"


def test_a_dataset_without_any_score_is_named(specialist):
    table, rows = specialist
    with pytest.raises(ValueError, match="datasets without any score: dataset 1, dataset 2, data"):
        Router.fit(table.select(models=["model 2"]), embeddings=rows)


@pytest.mark.parametrize(
    ("k", "error", "words"),
    [
        (2.5, TypeError, "k must be an integer, got 2.5"),
        (True, TypeError, "k must be an integer, got True"),
        ("5", TypeError, "k must be an integer, got '5'"),
        (0, ValueError, "k must be at least 1, got 0"),
        (-1, ValueError, "k must be at least 1, got -1"),
        (10**12, ValueError, "k must be at most 65535, got 1000000000000"),
    ],
)
def test_bad_k(router, compass, k, error, words):
    table, rows = compass
    with pytest.raises(error, match=words):
        router.route(embeddings=rows[:2], rule="mean", k=k)
    with pytest.raises(error, match=words):
        router.explain(embedding=rows[0], rule="mean", k=k)
    with pytest.raises(error, match=words):
        router.route(embeddings=rows[:2], k=k)
    with pytest.raises(ValueError, match="'mean', 'raw' and 's3', found it with 'auto'"):
        router.route(embeddings=rows[:2], k=3)
    if k != 10**12:
        with pytest.raises(error, match=words):
            Router.fit(table, embeddings=rows, settings=Settings(k=k))


def test_arguments_of_the_wrong_kind_are_named(router, compass):
    table, rows = compass
    with pytest.raises(TypeError, match="embeddings must be an array, got list"):
        Router.fit(table, embeddings=rows.tolist())
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Router.fit(table, embeddings=rows, settings=Settings(seed=-1))
    with pytest.raises(TypeError, match="draws must be an integer, got 2.5"):
        Router.fit(table, embeddings=rows, settings=Settings(draws=2.5))
    with pytest.raises(TypeError, match="prompts must be a list of strings, got generator"):
        router.choose((p for p in ["a"]), embeddings=rows[:1])


def test_a_single_large_dataset_is_sampled_too(monkeypatch):
    monkeypatch.setattr("benchrouter.scores.held_out.ALL_RECORDS", 50)
    monkeypatch.setattr("benchrouter.scores.held_out.SAMPLE", 10)
    searched = []
    search = Index.search_per_dataset
    monkeypatch.setattr(
        Index,
        "search_per_dataset",
        lambda self, q, *a, **k: searched.append(len(q)) or search(self, q, *a, **k),
    )
    Router.fit(make_table(np.ones((60, 2)), np.zeros(60)), embeddings=unit_rows(60, 4))
    assert searched == [10]
