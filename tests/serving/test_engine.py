"""The engine: the router's decisions, in time, whatever happens."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tables import make_table
from tiny_encoder import prompts_of, write_bert

from benchrouter import CostPolicy, Router
from benchrouter.decisions.costs.calibrations import Calibrations
from benchrouter.decisions.decider import Decider
from benchrouter.embeddings import Encoder
from benchrouter.serving import (
    CAUSES,
    BadPrompt,
    DecisionLog,
    Engine,
    Observer,
    Routed,
    RoutePolicy,
    UnknownRouter,
    decision_log,
    tasks,
    worker,
)
from benchrouter.serving.worker import _reason

N_RECORDS = 120


def table_of(seed=0, models=4):
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(4), N_RECORDS // 4)
    right = rng.random((N_RECORDS, models)) < rng.random((4, models))[dataset]
    return make_table(
        right.astype(np.float32),
        dataset,
        prompts=prompts_of(rng.integers(3, 12, N_RECORDS).tolist(), seed=seed),
        cost_usd=rng.random((N_RECORDS, models)).astype(np.float32) / 100,
        params_b=np.arange(models, dtype=float) + 1,
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder.load(write_bert(tmp_path_factory.mktemp("encoder"), max_seq_length=24))


@pytest.fixture(scope="module")
def router(encoder):
    return Router.fit(table_of(), encoder=encoder)


@pytest.fixture(scope="module")
def other(encoder):
    return Router.fit(table_of(seed=5), encoder=encoder)


@pytest.fixture
def prompts():
    return prompts_of([3, 9, 5, 30, 7, 4, 12, 6] * 6, seed=3)


class Recorder(Observer):
    def __init__(self):
        self.answers, self.batches, self.reloads = [], [], []

    def answered(self, routed, prompt, seconds):
        self.answers.append((routed, prompt, seconds))

    def batch(self, device, n_prompts, n_tokens, seconds):
        self.batches.append((device, n_prompts, n_tokens, seconds))

    def reloaded(self, name, version, error):
        self.reloads.append((name, version, error))


def made(source, **options):
    return Engine(source, **{"deadline_s": None, "reload_every_s": None, **options})


def wait_until(true, seconds=10.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


class Slow:
    """An encoder that waits for permission, but for warming up, and can fail."""

    def __init__(self, monkeypatch):
        self.go, self.started, self.error = threading.Event(), threading.Event(), None
        plain = Encoder.encode_tensor

        def encode(encoder, prompts, *, warn=True):
            if not isinstance(prompts, list) or prompts[0] != "warm-up":
                self.started.set()
                assert self.go.wait(20)
            if self.error is not None:
                raise self.error
            return plain(encoder, prompts, warn=warn)

        self.go.set()
        monkeypatch.setattr(Encoder, "encode_tensor", encode)

    def stop(self):
        self.go.clear()
        self.started.clear()


@pytest.fixture
def slow(monkeypatch):
    found = Slow(monkeypatch)
    yield found
    found.go.set()


# --- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "raw", "s3"])
def test_answers_are_the_decisions_of_route(router, encoder, prompts, rule):
    expected = router.route(prompts, rule=rule)
    with made(router, encoder=encoder, policy=RoutePolicy(rule=rule)) as engine:

        async def all_at_once():
            return await asyncio.gather(*[engine.route(prompt) for prompt in prompts])

        found = asyncio.run(all_at_once())
        again = engine.route_many_blocking(prompts)
    for answers in (found, again):
        assert [routed.model for routed in answers] == expected.names()
        np.testing.assert_allclose([r.score for r in answers], expected.score, rtol=1e-6)
        np.testing.assert_allclose([r.margin for r in answers], expected.margin, atol=1e-6)
        np.testing.assert_allclose([r.distance for r in answers], expected.distance, rtol=1e-5)
        assert [routed.fallback for routed in answers] == expected.fallback.tolist()
    assert all(routed.cached for routed in again)
    assert not any(routed.cached for routed in found)


def test_prompts_that_come_together_are_embedded_together(router, encoder, prompts):
    recorder = Recorder()
    with made(router, encoder=encoder, observers=[recorder], max_wait_s=0.2) as engine:

        async def all_at_once():
            return await asyncio.gather(*[engine.route(prompt) for prompt in prompts])

        asyncio.run(all_at_once())
    assert len(recorder.batches) < len(prompts) / 4
    assert sum(n for _, n, _, _ in recorder.batches) == len(prompts)
    assert len(recorder.answers) == len(prompts)
    assert {prompt for _, prompt, _ in recorder.answers} == set(prompts)


def test_from_many_threads(router, encoder, prompts):
    expected = router.route(prompts).names()
    with made(router, encoder=encoder, cache_size=0) as engine, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(engine.route_blocking, prompts * 5))
    assert [routed.model for routed in found] == expected * 5


def test_event_loops_that_have_ended_are_not_kept(router, encoder):
    loops = []

    async def ask():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await engine.route("w1")

    with made(router, encoder=encoder, cache_size=0) as engine:
        for _ in range(5):
            assert asyncio.run(ask()).cause is None
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


@pytest.mark.parametrize("deadline_s", [1e10, 10**400, float("inf")])
def test_a_deadline_may_be_as_far_as_one_likes(router, encoder, deadline_s):
    with made(router, encoder=encoder, cache_size=0) as engine:
        assert engine.route_blocking("w1", deadline_s=deadline_s).cause is None
        assert asyncio.run(engine.route("w1", deadline_s=deadline_s)).cause is None


def test_all_shapes_of_a_prompt(router, encoder):
    text = prompts_of([5])[0]
    messages = [{"role": "user", "content": text}]
    with made(router, encoder=encoder) as engine:
        one = engine.route_blocking(text)
        assert engine.route_blocking(messages).model == one.model
        many = engine.route_many_blocking([text, text])
        assert [routed.model for routed in many] == [one.model] * 2
        assert engine.route_many_blocking([messages, messages])[1].model == one.model
        assert engine.route_many_blocking((text,))[0].model == one.model
        assert engine.route_many_blocking([]) == []
        assert asyncio.run(engine.route_many([])) == []


@pytest.mark.parametrize("prompts", [["w1", "w2"], ("w1", "w2"), [[{"role": "user"}]] * 2])
def test_a_list_is_for_another_method_than_one_prompt(router, encoder, prompts):
    with made(router, encoder=encoder) as engine:
        words = "found a list of 2 prompts, expected one: route_many and route_many_blocking take"
        with pytest.raises(TypeError, match=words):
            engine.route_blocking(prompts)
        with pytest.raises(TypeError, match=words):
            asyncio.run(engine.route(prompts))


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("w1 w2", "a single string"),
        (b"w1", "a single string"),
        ([{"role": "user", "content": "w1"}], "the messages of a chat"),
    ],
)
def test_one_prompt_is_for_another_method_than_a_list(router, encoder, prompt, found):
    words = f"found {found}, expected a list of prompts: route and route_blocking take one prompt"
    with made(router, encoder=encoder) as engine:
        with pytest.raises(TypeError, match=words):
            engine.route_many_blocking(prompt)
        with pytest.raises(TypeError, match=words):
            asyncio.run(engine.route_many(prompt))


def test_given_embeddings(router, encoder, prompts):
    rows = encoder.encode(prompts)
    expected = router.route(embeddings=rows).names()
    recorder = Recorder()
    with made(router, encoder=encoder, observers=[recorder]) as engine:
        found = engine.route_many_blocking(prompts, embeddings=rows)
        assert [routed.model for routed in found] == expected
        found = engine.route_many_blocking(None, embeddings=rows.astype(np.float16))
        assert [routed.model for routed in found] == expected
        assert engine.route_blocking(prompts[0], embedding=rows[0]).model == expected[0]
        assert engine.route_blocking(None, embedding=rows[0]).model == expected[0]
        assert recorder.batches == []
        with pytest.raises(ValueError, match=r"must have shape \(dim,\), got shape \(2, 32\)"):
            engine.route_blocking("w1", embedding=rows[:2])
        with pytest.raises(ValueError, match="prompts or embeddings are needed, got neither"):
            engine.route_many_blocking(None)
        with pytest.raises(ValueError, match="1 prompts came with 2 embeddings"):
            engine.route_many_blocking(["w1"], embeddings=rows[:2])
        with pytest.raises(ValueError, match="2 prompts came with 3 embeddings"):
            engine.route_many_blocking(prompts[:2], embeddings=rows[:3])
        with pytest.raises(ValueError, match="dim 5, the router's have dim 32"):
            engine.route_blocking(prompts[0], embedding=np.eye(5, dtype=np.float32)[0])


def test_the_policy_of_a_request(router, encoder, prompts):
    allowed = ("model 2", "nobody's", "model 1")
    policies = [
        RoutePolicy(models=allowed),
        RoutePolicy(cost_weight=50.0),
        RoutePolicy(within=0.3, max_cost_usd=0.006, rule="raw", k=9),
        RoutePolicy(min_success=0.5),
    ]
    with made(router, encoder=encoder) as engine:

        async def all_at_once():
            return await asyncio.gather(*[engine.route_many(prompts, policy=p) for p in policies])

        found = asyncio.run(all_at_once())
    for policy, answers in zip(policies, found, strict=True):
        expected = router.rank(
            prompts,
            policy=policy,
            models=["model 1", "model 2"] if policy.models else None,
        )
        assert [r.model for r in answers] == expected.decisions.names()
        for i, routed in enumerate(answers):
            assert routed.ranking == tuple(router.models[m] for m in expected.order[i])
        if policy.counts_costs:
            costs = [r.cost_usd for r in answers]
            np.testing.assert_allclose(costs, expected.decisions.cost_usd, rtol=1e-5)


def test_the_models_of_the_engine_are_those_of_every_request(router, encoder, prompts):
    ours = RoutePolicy(models=("model 2", "nobody's", "model 1"))
    with made(router, encoder=encoder, policy=ours) as engine:
        for policy in (None, RoutePolicy(rule="raw"), RoutePolicy(cost_weight=50.0)):
            asked = policy or ours
            found = engine.route_many_blocking(prompts, policy=policy)
            expected = router.route(prompts, policy=asked, models=["model 1", "model 2"])
            assert [routed.model for routed in found] == expected.names()
            told = asyncio.run(engine.explain(prompts[0], policy=policy))
            assert told.model == found[0].model
        other = engine.route_many_blocking(prompts, policy=RoutePolicy(models=("model 0",)))
        assert {routed.model for routed in other} == {"model 0"}


def test_the_policy_of_a_task(router, encoder, prompts):
    ours = RoutePolicy(models=("model 2", "nobody's", "model 1"), rule="raw", k=3)
    with made(router, encoder=encoder, policy=ours) as engine:
        for policy, given in (
            (None, {"models": ["model 1", "model 2"]}),
            (RoutePolicy(models=("model 0",)), {"models": ["model 0"]}),
            (
                RoutePolicy(cost_weight=50.0),
                {"models": ["model 1", "model 2"], "policy": CostPolicy(cost_weight=50.0)},
            ),
        ):
            found = asyncio.run(engine.choose(prompts, policy=policy))
            expected = router.choose(prompts, **given)
            assert (found.model, found.reason) == (expected.model, expected.reason)
        with pytest.raises(ValueError, match="models: found 'x', expected some of"):
            asyncio.run(engine.choose(prompts, policy=RoutePolicy(models=("x",))))


def test_one_request_without_texts_does_not_fail_another(router, encoder, slow):
    prices = RoutePolicy(prices={name: (1.0, 2.0) for name in router.models}, output_tokens=5)
    texts = ["w1 w2", "w3 \ud800"]
    rows = encoder.encode(texts)
    with made(router, encoder=encoder, policy=prices) as engine, ThreadPoolExecutor(3) as pool:
        slow.stop()
        first = pool.submit(engine.route_blocking, "w0")
        wait_until(slow.started.is_set)
        without = pool.submit(engine.route_many_blocking, None, embeddings=rows)
        wait_until(lambda: engine.queued == 2)
        beside = pool.submit(engine.route_many_blocking, texts, embeddings=rows)
        wait_until(lambda: engine.queued == 4)
        slow.go.set()
        assert first.result(20).cause is None
        assert [routed.cause for routed in beside.result(20)] == [None, None]
        found = without.result(20)
    assert [routed.cause for routed in found] == ["error", "error"]
    assert "pass tokens, or the prompts" in found[0].reason
    expected = router.route(texts, policy=prices)
    assert [routed.model for routed in beside.result()] == expected.names()
    costs = [routed.cost_usd for routed in beside.result()]
    np.testing.assert_array_equal(np.float32(costs), expected.cost_usd)


def test_nobody_else_waits_for_a_calibration(encoder, prompts, monkeypatch):
    router = Router.fit(table_of(), encoder=encoder)  # whose chances nobody asked for yet
    likely = RoutePolicy(min_success=0.5, rule="mean")
    go, started, plain = threading.Event(), threading.Event(), Calibrations.held_out_pairs

    def held_out_pairs(self, plan):
        started.set()
        assert go.wait(20)
        return plain(self, plan)

    monkeypatch.setattr(Calibrations, "held_out_pairs", held_out_pairs)
    with made(router, encoder=encoder) as engine, ThreadPoolExecutor(2) as pool:
        asked = pool.submit(engine.route_many_blocking, prompts, policy=likely)
        assert started.wait(20)
        assert engine.route_blocking(prompts[0], deadline_s=5.0).cause is None
        late = engine.route_blocking(prompts[0], policy=likely, deadline_s=0.05)
        assert late.cause == "deadline"
        assert not engine.drain(timeout_s=0.1)
        go.set()
        assert engine.drain(timeout_s=20)
        found = asked.result(20)
    expected = router.route(prompts, rule="mean", policy=likely)
    assert [routed.model for routed in found] == expected.names()
    with made(router, encoder=encoder, policy=likely) as engine:
        assert engine.route_blocking(prompts[0]).model == expected.names()[0]


def test_a_policy_is_calibrated_before_the_first_prompt_comes(encoder):
    router = Router.fit(table_of(), encoder=encoder)
    likely = RoutePolicy(min_success=0.5, rule="mean", k=3)
    assert not router.is_calibrated("mean", k=3, policy=likely)
    with made(router, encoder=encoder, policy=likely):
        assert router.is_calibrated("mean", k=3, policy=likely)
    assert not router.is_calibrated(policy=RoutePolicy(min_success=0.5, rule="mean"))
    assert router.is_calibrated("mean")
    with pytest.raises(ValueError, match="k must be at least 1"):
        router.is_calibrated("mean", k=0, policy=likely)


def test_auto_needs_no_calibration_and_tells_the_chance(encoder, prompts, monkeypatch):
    router = Router.fit(table_of(), encoder=encoder)
    likely = RoutePolicy(min_success=0.5)

    def held_out_pairs(self, plan):
        raise AssertionError("nothing is calibrated at a request")

    monkeypatch.setattr(Calibrations, "held_out_pairs", held_out_pairs)
    assert router.is_calibrated(policy=likely)
    with made(router, encoder=encoder) as engine:
        found = engine.route_many_blocking(prompts, policy=likely)
        plain = engine.route_many_blocking(prompts)
        other = engine.route_blocking(prompts[0], policy=RoutePolicy(rule="mean"))
    for given, routed in ((likely, found), (None, plain)):
        expected = router.route(prompts, policy=given)
        assert [r.model for r in routed] == expected.names()
        for name in ("chance", "chance_low", "chance_high"):
            told = np.float32([getattr(r, name) for r in routed])
            np.testing.assert_array_equal(told, getattr(expected, name))
    assert (other.chance, other.chance_low, other.chance_high) == (None, None, None)


def test_the_reason_says_why_another_than_the_largest_is_taken():
    scores = np.float32([0.81, 0.84, 0.2])
    names = ("cheap", "dear", "weak")
    assert _reason(names, scores, "auto") == (
        "cheap is preferred: dear is ahead by 0.030, but held-out records do not bear out such "
        "leads"
    )
    assert _reason(names[1:], scores[1:], "auto") == "dear has the largest expected score, 0.840"
    assert _reason(names, scores, "raw") == "cheap has the largest score under the rule 'raw'"


def test_a_policy_that_allows_no_model_of_the_router_gets_the_fallback(router, encoder):
    with made(router, encoder=encoder) as engine:
        found = engine.route_blocking("w1 w2", policy=RoutePolicy(models=("nobody's",)))
    assert (found.model, found.cause) == (router.fallback, "no_model")
    assert "nobody's" in found.reason


def test_routers_by_name(router, other, encoder, prompts):
    recorder = Recorder()
    sources = {"one": router, "two": other}
    with made(sources, encoder=encoder, observers=[recorder]) as engine:

        async def both():
            return await asyncio.gather(
                engine.route_many(prompts, router="one"), engine.route_many(prompts, router="two")
            )

        one, two = asyncio.run(both())
        with pytest.raises(UnknownRouter, match="found None, expected one of"):
            engine.route_blocking("w1")
        with pytest.raises(KeyError, match="found 'three', expected one of"):
            engine.route_blocking("w1", router="three")
        assert list(engine.routers) == ["one", "two"]
        assert engine.routers["one"].models == router.models
    assert [r.model for r in one] == router.route(prompts).names()
    assert [r.model for r in two] == other.route(prompts).names()
    assert {r.router for r in one} == {"one"}
    assert [r.model for r in one] != [r.model for r in two]


def test_an_updated_router_decides_anew(encoder):
    table = table_of(seed=2)
    router = Router.fit(table, encoder=encoder)
    with made(router, encoder=encoder) as engine:
        before = engine.route_blocking("w1 w2 w3")
        router.remove(models=[before.model])
        after = engine.route_blocking("w1 w2 w3")
    assert (before.version, after.version) == ("memory-0", "memory-1")
    assert after.model != before.model and not after.cached


def test_the_least_recently_used_decision_is_forgotten(router, encoder):
    with made(router, encoder=encoder, cache_size=2) as engine:
        for text in ("w1", "w2", "w1", "w3"):
            engine.route_blocking(text)
        assert engine.route_blocking("w1").cached
        assert not engine.route_blocking("w2").cached
        other_policy = RoutePolicy(models=("model 1",))
        assert not engine.route_blocking("w1", policy=other_policy).cached


def test_explanations_and_choices(router, encoder, prompts):
    with made(router, encoder=encoder) as engine:
        why = asyncio.run(engine.explain([{"role": "user", "content": prompts[0]}]))
        task = asyncio.run(engine.choose(prompts))
        for policy in (RoutePolicy(models=("x", "model 0")), RoutePolicy(models=("x",))):
            allowed = asyncio.run(engine.explain(prompts[0], policy=policy))
            assert allowed.model == ("model 0" if "model 0" in policy.models else why.model)
        with pytest.raises(BadPrompt):
            asyncio.run(engine.explain(""))
    assert why.to_dict() == router.explain(prompts[0]).to_dict()
    assert task.model == router.choose(prompts).model


# --- what goes wrong -----------------------------------------------------------------------------


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


class Raising(dict):
    def get(self, *_):
        raise OSError("no message")


@pytest.mark.parametrize(
    "prompt",
    [
        *("", " ", None, 7, b"bytes", bytearray(b"bytes")),
        [{"role": "user", "content": None}],
        [{"role": "user", "content": b"bytes"}],
        [{"role": "user", "content": {"text": DEEP}}],
        [{"role": DEEP}],
        [Raising(role="user", content="w1")],
    ],
    ids=lambda prompt: type(prompt).__name__,
)
def test_a_bad_prompt_gets_the_fallback(router, encoder, prompt):
    with made(router, encoder=encoder) as engine:
        found = engine.route_blocking(prompt)
        good, bad = engine.route_many_blocking(["w1", ""])
    assert (found.model, found.cause, found.fallback) == (router.fallback, "bad_prompt", True)
    assert set(found.ranking) == set(router.models) and set(found.scores) == {None}
    assert (good.cause, bad.cause) == (None, "bad_prompt")


def test_a_long_prompt_loses_its_end_and_says_so(router, encoder):
    text = " ".join(prompts_of([40]))
    with made(router, encoder=encoder) as engine:
        found = engine.route_many_blocking([text, "w1 w2"])
        huge = engine.route_blocking(text + " w5" * 3_000_000)
    assert [routed.truncated for routed in found] == [True, False]
    assert huge.truncated and huge.model == found[0].model


def test_far_prompts_are_fallbacks_of_the_router(router, encoder, prompts):
    far = -encoder.encode(prompts).mean(axis=0)
    far /= np.linalg.norm(far)
    with made(router, encoder=encoder) as engine:
        found = engine.route_blocking(None, embedding=far)
    assert found.fallback and found.cause == "far" and found.model == router.fallback
    assert f"{found.distance:.3f}" in found.reason


def test_past_the_deadline_the_fallback_is_answered(router, encoder, slow):
    recorder = Recorder()
    with made(router, encoder=encoder, deadline_s=0.2, observers=[recorder]) as engine:
        slow.stop()
        start = time.monotonic()
        found = asyncio.run(engine.route("w1 w2"))
        threaded = engine.route_many_blocking(["w3", "w4"], deadline_s=0.1)
        took = time.monotonic() - start
        slow.go.set()
        wait_until(lambda: not engine.queued)
        assert engine.route_blocking("w1 w2", deadline_s=20).cause is None
    assert found.cause == "deadline" and found.model == router.fallback
    assert [routed.cause for routed in threaded] == ["deadline"] * 2
    assert 0.29 < took < 3
    assert len(recorder.answers) == 4  # each once, though the work was done after all


def test_requests_that_find_no_room_wait_for_it(router, encoder, slow):
    with made(router, encoder=encoder, max_queue=2, cache_size=0) as engine:
        slow.stop()

        async def ask():
            first = asyncio.ensure_future(engine.route("w1"))
            await asyncio.to_thread(slow.started.wait, 10)
            rest = [asyncio.ensure_future(engine.route(f"w{i}")) for i in range(2, 6)]
            await asyncio.sleep(0.05)
            late = await engine.route("w9", deadline_s=0.1)
            assert (late.cause, engine.queued) == ("overloaded", 5)
            big = asyncio.ensure_future(engine.route_many([f"w{i}" for i in range(20, 30)]))
            await asyncio.sleep(0)
            slow.go.set()
            return [*await asyncio.gather(first, *rest), *await big]

        found = asyncio.run(ask())
    assert {routed.cause for routed in found} <= {None, "far"} and len(found) == 15


def test_a_cancelled_choice_ends_at_its_next_piece(router, encoder, slow, monkeypatch):
    monkeypatch.setattr(tasks, "PIECE_CHARACTERS", 20)
    pieces, plain = [], tasks.embed

    def embed(served, device, texts):
        pieces.append(texts)
        return plain(served, device, texts)

    monkeypatch.setattr(tasks, "embed", embed)
    prompts = [f"w{i} w1 w2" for i in range(20)]
    with made(router, encoder=encoder) as engine:
        assert asyncio.run(engine.choose(prompts)).model == router.choose(prompts).model
        assert [text for piece in pieces for text in piece] == prompts and len(pieces) >= 7
        pieces.clear()
        slow.stop()

        async def choose():
            choosing = asyncio.ensure_future(engine.choose(prompts))
            await asyncio.to_thread(slow.started.wait, 10)
            choosing.cancel()
            await asyncio.sleep(0.05)
            assert not choosing.done()  # its thread is at work
            slow.go.set()
            with pytest.raises(asyncio.CancelledError):
                await choosing

        asyncio.run(choose())
    assert len(pieces) == 1


def test_a_cancelled_request_is_not_worked_on(router, encoder, slow):
    recorder = Recorder()
    with made(router, encoder=encoder, observers=[recorder]) as engine:
        slow.stop()

        async def ask():
            first = asyncio.ensure_future(engine.route("w1"))
            await asyncio.to_thread(slow.started.wait, 10)
            second = asyncio.ensure_future(engine.route("w2 w3"))
            await asyncio.sleep(0.05)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            slow.go.set()
            return await first

        assert asyncio.run(ask()).cause is None
        wait_until(lambda: not engine.queued)
    assert [prompt for _, prompt, _ in recorder.answers] == ["w1"]
    assert sum(n for _, n, _, _ in recorder.batches) == 1


def test_a_broken_device_is_tried_again_after_a_while(router, encoder, slow, monkeypatch):
    monkeypatch.setattr(worker, "RETRY_S", 0.3)
    with made(router, encoder=encoder, cache_size=0) as engine:
        slow.error = RuntimeError("CUDA error: device lost")
        found = engine.route_blocking("w1")
        assert (found.cause, found.model) == ("encoder", router.fallback)
        assert "device lost" in found.reason
        assert not engine.ready and engine.failures == {"cpu": "CUDA error: device lost"}
        slow.error = None
        assert engine.route_blocking("w2").cause == "encoder"  # not tried again at once
        time.sleep(0.35)
        assert engine.route_blocking("w3").cause is None
        assert engine.ready and engine.failures == {}
        slow.error = RuntimeError("again")
        assert engine.route_blocking("w4").cause == "encoder"
        slow.error = None
        wait_until(lambda: engine.ready)  # though nobody asks


def test_a_panic_of_the_encoder_ends_no_thread(router, encoder, slow, monkeypatch):
    class Panic(BaseException):  # as those of Rust, in tokenizers
        pass

    monkeypatch.setattr(worker, "RETRY_S", 0.1)
    with made(router, encoder=encoder, cache_size=0, deadline_s=5.0) as engine:
        slow.error = Panic("index out of bounds")
        found = engine.route_blocking("w1")
        assert found.cause == "encoder" and "out of bounds" in found.reason
        time.sleep(0.15)  # it is tried again, though nobody asks
        slow.error = None
        wait_until(lambda: engine.ready)
        assert engine.route_blocking("w1").cause is None
        monkeypatch.setattr(Decider, "rank", lambda *_, **__: (_ for _ in ()).throw(Panic("rank")))
        assert engine.route_blocking("w1").cause == "error"
        monkeypatch.undo()
        assert engine.route_blocking("w1").cause is None


def test_another_device_takes_over(router, encoder, monkeypatch):
    monkeypatch.setattr("benchrouter.serving.engine.check_device", lambda device: device)
    monkeypatch.setattr("benchrouter.serving.encoders.Encoders._of", lambda *_: encoder)
    plain = Encoder.encode_tensor

    def encode(encoder, prompts, *, warn=True):
        if threading.current_thread().name == "benchrouter-cuda:0":
            raise RuntimeError("lost")
        return plain(encoder, prompts, warn=warn)

    monkeypatch.setattr(Encoder, "encode_tensor", encode)
    with made(router, devices=("cuda:0", "cuda:1"), cache_size=0) as engine:
        found = [engine.route_blocking(f"w{i % 300}") for i in range(200)]
        assert engine.ready and engine.failures == {"cuda:0": "lost"}
    assert {routed.cause for routed in found} <= {None, "far"}


def test_a_router_that_fails_is_answered_for(router, encoder, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room")

    with made(router, encoder=encoder) as engine:
        monkeypatch.setattr(Decider, "rank", fail)
        found = engine.route_blocking("w1")
    assert (found.cause, found.model) == ("error", router.fallback)
    assert "no room" in found.reason


def test_an_observer_that_fails_disturbs_nobody(router, encoder, caplog):
    class Bad(Recorder):
        def answered(self, routed, prompt, seconds):
            raise ZeroDivisionError

        batch = answered

    good = Recorder()
    with made(router, encoder=encoder, observers=[Bad(), good]) as engine:
        assert engine.route_blocking("w1").cause is None
    assert len(good.answers) == 1
    assert "an observer failed" in caplog.text


def test_after_closing_the_fallback_is_answered(router, encoder):
    engine = made(router, encoder=encoder)
    engine.close()
    found = engine.route_blocking("w1")
    assert (found.cause, found.model) == ("closed", router.fallback)
    assert not engine.ready
    engine.close()


def test_draining_answers_what_was_asked_before(router, encoder, slow):
    engine = made(router, encoder=encoder)
    slow.stop()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(engine.route_blocking, "w0")]
        wait_until(slow.started.is_set)
        asked += [pool.submit(engine.route_blocking, f"w{i}") for i in range(1, 6)]
        wait_until(lambda: engine.queued == 5)
        assert not engine.drain(timeout_s=0.05)
        assert engine.route_blocking("w9").cause == "closed"
        slow.go.set()
        assert engine.drain(timeout_s=10)
        assert [each.result().cause for each in asked] == [None] * 6
    engine.close()


def test_what_is_left_at_the_end_of_patience_gets_the_fallback(router, encoder, slow):
    engine = made(router, encoder=encoder)
    slow.stop()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(engine.route_blocking, "w1")
        wait_until(slow.started.is_set)
        second = pool.submit(engine.route_blocking, "w2 w3")
        wait_until(lambda: engine.queued == 1)
        closing = pool.submit(engine.close, 1.0)
        assert second.result(10).cause == "closed"
        slow.go.set()
        assert first.result(10).cause is None
        closing.result(10)


def test_a_device_that_hangs_is_not_ready(router, encoder, slow, monkeypatch):
    monkeypatch.setattr(worker, "HANG_S", 0.1)
    with made(router, encoder=encoder, cache_size=0) as engine:
        slow.stop()
        assert engine.route_blocking("w1", deadline_s=0.02).cause == "deadline"
        wait_until(lambda: not engine.ready)
        assert engine.failures["cpu"].startswith("it hangs: for 0 s")
        slow.go.set()
        wait_until(lambda: engine.ready)
        assert engine.failures == {} and engine.route_blocking("w1").cause is None


def test_a_device_that_hangs_keeps_nobody_waiting_once_it_is_closed(router, encoder, slow):
    engine = made(router, encoder=encoder)
    slow.stop()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(engine.route_many_blocking, ["w1", ""])
        wait_until(slow.started.is_set)
        engine.close(0.1)
        assert [routed.cause for routed in asked.result(10)] == ["closed", "bad_prompt"]


def test_at_the_end_of_a_program_an_engine_is_closed(router, encoder, tmp_path):
    """For torch aborts the program if a thread is torn out of it."""
    router.save(tmp_path / "router")
    program = f"""
import atexit, threading
from benchrouter.serving import Engine
atexit.register(lambda: print([t.name for t in threading.enumerate()], engine.ready))
engine = Engine({str(tmp_path / "router")!r})
print(engine.route_blocking("w1").cause)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stdout) == (0, "None\n['MainThread'] False\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_the_fallback_is_answered_at_once(router, encoder):
    with made(router, encoder=encoder) as engine:
        assert engine.route_blocking("w1").cause is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that do not come along
            child = os.fork()
        if child == 0:
            found = engine.route_blocking("w2 w3")
            is_right = found.cause == "closed" and "made before a fork" in found.reason
            os._exit(0 if is_right and not engine.ready else 1)
        ended = []
        waiting = threading.Thread(target=lambda: ended.append(os.waitpid(child, 0)), daemon=True)
        waiting.start()
        waiting.join(20)
        if not ended:
            os.kill(child, 9)
        assert ended == [(child, 0)]
        assert engine.route_blocking("w2 w3").cause is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"routers": {}}, ValueError, "routers: found none"),
        ({"max_queue": 0}, ValueError, "max_queue must be at least 1, got 0"),
        ({"max_wait_s": -1}, ValueError, "max_wait_s must be at least 0, got -1"),
        ({"cache_size": 1.5, "max_batch_tokens": 0}, ValueError, "max_batch_tokens must be"),
        ({"deadline_s": 0}, ValueError, "deadline_s must be seconds above 0, got 0"),
        ({"deadline_s": "1"}, ValueError, "deadline_s must be seconds above 0, got '1'"),
        ({"reload_every_s": 0}, ValueError, "reload_every_s must be at least"),
        ({"reload_every_s": float("inf")}, ValueError, r"must be at most 1e\+09, got inf"),
        ({"max_wait_s": 1e30}, ValueError, r"max_wait_s must be at most 1e\+09, got 1e\+30"),
        ({"devices": ("tpu",)}, ValueError, "tpu"),
        ({"devices": ()}, ValueError, "devices: found none, expected at least one"),
        ({"policy": {"rule": "raw"}}, TypeError, "policy must be a RoutePolicy, got dict"),
        ({"policy": RoutePolicy(prices={"x": (1, 2)})}, ValueError, "prices name 'x', no model"),
        ({"devices": ("cpu", "cpu")}, ValueError, "expected \\['cpu'\\]"),
    ],
)
def test_what_an_engine_is_not_made_of(router, encoder, options, error, words):
    with pytest.raises(error, match=words):
        made(options.pop("routers", router), encoder=encoder, **options)


def test_a_policy_or_a_deadline_that_is_none_is_an_error_of_the_caller(encoder):
    plain = Router.fit(table_of().select(models=["model 0", "model 1"]), encoder=encoder)
    with made(plain, encoder=encoder) as engine:
        with pytest.raises(TypeError, match="policy must be a RoutePolicy, got dict"):
            engine.route_blocking("w1", policy={"rule": "raw"})
        with pytest.raises(ValueError, match="budget_usd is for all prompts together"):
            engine.route_blocking("w1", policy=RoutePolicy(budget_usd=1.0))
        with pytest.raises(ValueError, match="deadline_s must be seconds above 0"):
            engine.route_blocking("w1", deadline_s=-1)
        with pytest.raises(ValueError, match="no prices are known for model 0"):
            engine.route_blocking("w1", policy=RoutePolicy(cost_weight=1.0, costs="prices"))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"rule": "best"}, ValueError, "rule must be one of"),
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 7}, ValueError, "k is for the rules 'mean', 'raw' and 's3', found it with 'auto'"),
        ({"rule": "s3", "within": "auto"}, ValueError, "within 'auto' is for the rule 'auto'"),
        ({"within": "much"}, ValueError, "within must be a number or 'auto', got 'much'"),
        ({"k": 1.5}, TypeError, "k must be an integer, got 1.5"),
        ({"models": "one"}, TypeError, "models must be a list of names"),
        ({"models": [1]}, TypeError, "models must be a list of names"),
        ({"models": []}, ValueError, "at least one model"),
        ({"cost_weight": -1}, ValueError, "cost_weight must be at least 0"),
        ({"cost_weight": 1, "within": 0.1}, ValueError, "at most one of"),
        ({"colour": 1}, ValueError, "found 'colour', expected some of"),
    ],
)
def test_what_is_no_policy(given, error, words):
    with pytest.raises(error, match=words):
        RoutePolicy.of(given)


def test_equal_policies_have_equal_keys():
    one = RoutePolicy.of({"prices": {"b": [1, 2], "a": [3, 4]}, "output_tokens": 5, "k": None})
    two = RoutePolicy(prices={"a": (3, 4), "b": (1, 2)}, output_tokens=5)
    assert one.key == two.key and hash(one.key) == hash(two.key)
    assert RoutePolicy().key != RoutePolicy(rule="mean").key
    assert RoutePolicy(rule="mean").key != RoutePolicy(rule="mean", k=5).key
    assert RoutePolicy(within="auto").key != RoutePolicy(within=0.1).key


# --- routers on disk -----------------------------------------------------------------------------


@pytest.fixture
def saved(router, encoder, tmp_path):
    router.save(tmp_path / "router")
    return tmp_path / "router"


def test_a_replaced_directory_is_read_again(router, other, encoder, prompts, saved):
    recorder = Recorder()
    options = {"encoder": encoder, "observers": [recorder], "reload_every_s": 0.05}
    with made(saved, **options) as engine:
        assert [r.model for r in engine.route_many_blocking(prompts)] == router.route(
            prompts
        ).names()
        old = engine.routers["default"].version
        assert len(old) == 12
        other.save(saved)
        wait_until(lambda: engine.routers["default"].version != old)
        found = engine.route_many_blocking(prompts)
        assert [r.model for r in found] == other.route(prompts).names()
        assert {r.version for r in found} == {engine.routers["default"].version}
        wait_until(lambda: recorder.reloads)
    assert [(name, error) for name, _, error in recorder.reloads] == [("default", None)]


def test_no_request_is_lost_while_directories_are_replaced(router, other, encoder, prompts, saved):
    expected = {"one": router.route(prompts).names(), "two": other.route(prompts).names()}
    with made(saved, encoder=encoder, reload_every_s=0.02, cache_size=0) as engine:
        versions = {engine.routers["default"].version: "one"}
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(engine.route_many_blocking(prompts))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        for turn in range(6):
            before = engine.routers["default"].version
            (other, router)[turn % 2].save(saved)
            wait_until(lambda before=before: engine.routers["default"].version != before)
            versions[engine.routers["default"].version] = ("two", "one")[turn % 2]
        stop.set()
        for asker in askers:
            asker.join()
    assert len(versions) == 2
    seen = set()
    for found in answers:
        (version,) = {routed.version for routed in found} if len(found) else {None}
        seen.add(versions[version])
        assert [routed.model for routed in found] == expected[versions[version]]
        assert {routed.cause for routed in found} <= {None, "far"}
    assert seen == {"one", "two"}


def test_a_request_is_answered_by_the_router_that_it_found(
    router, other, encoder, prompts, saved, slow
):
    with made(saved, encoder=encoder) as engine, ThreadPoolExecutor(2) as pool:
        old = engine.routers["default"].version
        slow.stop()
        first = pool.submit(engine.route_blocking, "w0")
        wait_until(slow.started.is_set)
        asked = pool.submit(engine.route_many_blocking, prompts)
        wait_until(lambda: engine.queued == len(prompts))
        other.save(saved)
        assert engine.reload() == ["default"]
        slow.go.set()
        assert first.result(20).version == old
        found = asked.result(20)
        after = engine.route_many_blocking(prompts)
    assert {routed.version for routed in found} == {old}
    assert [routed.model for routed in found] == router.route(prompts).names()
    assert [routed.model for routed in after] == other.route(prompts).names()


def test_another_encoder_is_loaded_beside_the_one_in_use(encoder, tmp_path, monkeypatch):
    Router.fit(table_of(), encoder=encoder).save(tmp_path / "router")
    unlike = Router.fit(table_of(), encoder=Encoder.load(write_bert(tmp_path / "unlike", seed=9)))
    loading, go, loaded, plain = threading.Event(), threading.Event(), [], Encoder.load

    def load(*arguments, **options):
        found = plain(*arguments, **options)
        loaded.append(weakref.ref(found))
        if len(loaded) > 1:
            loading.set()
            assert go.wait(20)
        return found

    monkeypatch.setattr(Encoder, "load", load)
    with made(tmp_path / "router") as engine, ThreadPoolExecutor(1) as pool:
        old = engine.routers["default"].version
        unlike.save(tmp_path / "router")
        reloading = pool.submit(engine.reload)
        assert loading.wait(20)
        during = asyncio.run(engine.route("w1 w2", deadline_s=5.0))
        go.set()
        assert reloading.result(20) == ["default"]
        after = engine.route_blocking("w1 w2")
        del reloading
        assert [found() is None for found in loaded] == [True, False]  # the old one is let go
    assert (during.version, during.cause) == (old, None)
    assert after.version != old and after.distance == unlike.route(["w1 w2"]).distance[0]


@pytest.mark.parametrize("damage", ["removed", "cut", "other", "encoder"])
def test_a_directory_gone_bad_leaves_the_router_as_it_is(
    router, encoder, saved, damage, tmp_path, caplog
):
    recorder = Recorder()
    with made(saved, encoder=encoder, observers=[recorder]) as engine:
        version = engine.routers["default"].version
        if damage == "removed":
            shutil.rmtree(saved)
        elif damage == "cut":
            content = (saved / "router.json").read_text()
            (saved / "router.json").write_text(content[:100])
        elif damage == "other":
            shutil.rmtree(saved)
            saved.mkdir()
            (saved / "router.json").write_text("{}")
        else:
            unlike = Encoder.load(write_bert(tmp_path / "unlike", seed=9))
            Router.fit(table_of(), encoder=unlike).save(saved)
            shutil.rmtree(tmp_path / "unlike")
        assert engine.reload() == []
        assert engine.reload() == []  # told once
        assert engine.route_blocking("w1").cause is None
        info = engine.routers["default"]
        assert info.version == version and info.error
        assert [(name, found) for name, found, error in recorder.reloads if error] == [
            ("default", version)
        ]
        assert "stays at version" in caplog.text
        if saved.exists():
            shutil.rmtree(saved)
        router.save(saved)
        assert engine.reload() == ["default"]
        assert engine.routers["default"].error is None


def test_a_router_that_does_not_offer_the_policy_is_not_served(router, encoder, saved):
    policy = RoutePolicy(cost_weight=1.0)
    with made(saved, encoder=encoder, policy=policy) as engine:
        version = engine.routers["default"].version
        free = replace(table_of(seed=5), cost_usd=None)
        Router.fit(free, encoder=encoder).save(saved)
        assert engine.reload() == []
        info = engine.routers["default"]
        assert info.version == version and "cost of some models is not known" in info.error
        assert engine.route_blocking("w1").cause is None


def test_what_is_no_router_is_refused_at_once(encoder, tmp_path):
    with pytest.raises(ValueError, match="it has no router"):
        made(tmp_path, encoder=encoder)


def test_embeddings_without_an_encoder(encoder, tmp_path):
    table = table_of()
    Router.fit(table, embeddings=encoder.encode(table.prompts)).save(tmp_path / "router")
    with pytest.raises(ValueError, match="without an encoder: pass encoder"):
        made(tmp_path / "router")
    with made(tmp_path / "router", encoder=encoder) as engine:
        assert engine.route_blocking("w1").cause is None


# --- the decision log ----------------------------------------------------------------------------


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_decision_is_logged(router, encoder, tmp_path):
    log = DecisionLog(tmp_path / "decisions.jsonl")
    with made(router, encoder=encoder, observers=[log]) as engine:
        found = engine.route_many_blocking(["w1 secret", "", "w1 secret"])
        bad = engine.route_blocking([{"role": "user", "content": {"text": "secret"}}])
        engine.route_blocking("w1 secret")
    log.close()
    lines = lines_of(tmp_path / "decisions.jsonl")
    assert len(lines) == 5
    assert "secret" in bad.reason and lines[3]["reason"] == CAUSES["bad_prompt"]
    for line, routed in zip(
        sorted(lines[:3], key=lambda x: x["fallback"]), found[::2], strict=False
    ):
        assert line["model"] == routed.model and line["version"] == "memory-0"
        assert line["scores"] == dict(zip(routed.ranking, routed.scores, strict=True))
        assert line["seconds"] > 0 and abs(line["time"] - time.time()) < 60
    assert lines[-1]["cached"]
    assert [line["cause"] for line in lines].count("bad_prompt") == 2
    assert "secret" not in (tmp_path / "decisions.jsonl").read_text()


def test_prompts_are_logged_on_request_and_files_rotate(router, encoder, tmp_path):
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, max_bytes=2000, backups=2, with_prompts=True)
    with made(router, encoder=encoder, observers=[log]) as engine:
        engine.route_many_blocking([f"w{i} \u2028 é" for i in range(30)])
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"decisions.jsonl{end}" for end in ("", ".1", ".2")]
    for file in files:
        assert file.stat().st_size <= 2000
        assert all(line["prompt"].endswith("\u2028 é") for line in lines_of(file))


def test_a_full_disk_loses_lines_and_says_so(router, encoder, caplog):
    log = DecisionLog("/dev/full", max_bytes=0)
    with made(router, encoder=encoder, observers=[log]) as engine:
        found = engine.route_many_blocking(["w1", "w2"])
    log.close()
    assert [routed.cause for routed in found] == [None] * 2
    assert log.lost == 2
    assert caplog.text.count("the decision log loses decisions") == 1


ROUTED = Routed(
    *("one", ("one", "two"), (0.5, None), False, None, "a reason", 0.5, 0.1, 0.2, None, None),
    *(False, False, "default", "v1"),
)


def test_after_half_a_line_a_new_one_is_begun(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"time": 1, "rou')  # by a process that was killed
    for _ in range(2):
        log = DecisionLog(path)
        log.answered(ROUTED, None, 0.1)
        log.close()
    half, *whole = path.read_text().splitlines()
    assert half == '{"time": 1, "rou'
    assert [json.loads(line)["model"] for line in whole] == ["one", "one"]


def test_a_file_that_cannot_be_rotated_goes_on(tmp_path, monkeypatch, caplog):
    log = DecisionLog(tmp_path / "log", max_bytes=500)

    def rename(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "rename", rename)
    for _ in range(20):
        log.answered(ROUTED, None, 0.1)
    log.close()
    assert len(lines_of(tmp_path / "log")) == 20 and log.lost == 0
    assert caplog.text.count("goes on in the same file: read-only") == 1


def test_a_folder_that_has_gone_loses_lines_until_it_is_there_again(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = DecisionLog(folder / "log", max_bytes=500, backups=1)
    for step in (lambda: None, lambda: shutil.rmtree(folder), folder.mkdir):
        wait_until(log._pending.empty)
        time.sleep(0.05)
        step()
        for _ in range(4):
            log.answered(ROUTED, None, 0.1)
    log.close()
    assert sorted(file.name for file in folder.iterdir()) == ["log", "log.1"]
    assert 0 < log.lost <= 4


@pytest.mark.parametrize("backups", [0, 1, 3])
def test_so_many_old_files_are_kept(tmp_path, backups):
    log = DecisionLog(tmp_path / "log", max_bytes=500, backups=backups)
    for i in range(10):
        log.answered(replace(ROUTED, reason=str(i)), None, 0.1)
    log.close()
    kept = {file.name: lines_of(file)[-1]["reason"] for file in tmp_path.iterdir()}
    newest = {
        f"log.{i}": str(9 - i * len(lines_of(tmp_path / "log"))) for i in range(1, backups + 1)
    }
    assert kept == {"log": "9", **newest} and log.lost == 0


def test_a_disk_that_does_not_answer_holds_up_nobody(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(decision_log, "PENDING", 100)
    monkeypatch.setattr(decision_log, "CLOSE_S", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)  # which nobody reads, and holds less than a line
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog(path, with_prompts=True)
    start = time.monotonic()
    for _ in range(200):
        log.answered(ROUTED, "x" * 200_000, 0.1)
    log.close()
    log.close()
    assert time.monotonic() - start < 5 and 99 <= log.lost <= 100
    log.answered(ROUTED, None, 0.1)
    assert "the disk does not answer" in caplog.text
    os.close(reading)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_disk_that_does_not_answer_holds_up_no_end_of_a_program(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    program = f"""
import json, os
from benchrouter.serving import DecisionLog, Routed, decision_log
decision_log.CLOSE_S = 0.1
reading = os.open({str(tmp_path / "pipe")!r}, os.O_RDONLY | os.O_NONBLOCK)
log = DecisionLog({str(tmp_path / "pipe")!r}, with_prompts=True)
for _ in range(3):
    log.answered(Routed(**json.loads({json.dumps(ROUTED.to_dict())!r})), "x" * 200_000, 0.1)
print(log.lost)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "the disk does not answer" in done.stderr


def test_a_log_that_is_closed_counts_what_it_does_not_write(tmp_path):
    log = DecisionLog(tmp_path / "log")
    log.close()
    log.answered(ROUTED, None, 0.1)
    log.close()
    assert log.lost == 1 and not (tmp_path / "log").read_text()
