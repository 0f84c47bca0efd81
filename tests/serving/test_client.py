"""The client: what it asks and returns, when it tries again, what it raises."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
from tiny_encoder import prompts_of

from benchrouter import Router
from benchrouter.serving import Engine, Routed

for package in ("fastapi", "httpx", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

import httpx  # noqa: E402
from served import MODELS, ROOT, running, write_router  # noqa: E402

from benchrouter import client as clients  # noqa: E402
from benchrouter.client import (  # noqa: E402
    AsyncClient,
    Client,
    Decision,
    Overloaded,
    Refused,
    ServiceError,
    Unreachable,
)
from benchrouter.serving.service import Settings, make_app  # noqa: E402

PROMPTS = prompts_of([3, 9, 30], seed=3)
KEY = "k" * 40


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_router(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def url(directory):
    with Engine(directory, deadline_s=30.0, reload_every_s=None) as engine:
        app = make_app(engine, Settings(keys=(KEY,), max_prompts=5, log_requests=False))
        with running(app) as port:
            yield f"http://127.0.0.1:{port}"


def both(url, ask, **options):
    """What the client returns or raises, the same from both of its kinds."""

    async def from_a_loop():
        async with AsyncClient(url, **options) as client:
            return await ask(client)

    outcomes = []
    with Client(url, **options) as client:
        for call in (lambda: ask(client), lambda: asyncio.run(from_a_loop())):
            try:
                outcomes.append(call())
            except ServiceError as e:
                outcomes.append(e)
    first, second = outcomes
    if isinstance(first, Exception):
        assert (type(first), str(first)) == (type(second), str(second))
        raise first
    return first, second


def test_decisions_are_those_of_the_router(url, directory):
    names = Router.load(directory).route(PROMPTS).names()
    for found in both(url, lambda c: c.route_many(PROMPTS), api_key=KEY):
        assert [decision.model for decision in found] == names
        assert [decision.truncated for decision in found] == [False, False, True]
    for found in both(url, lambda c: c.route(PROMPTS[0]), api_key=KEY):
        assert isinstance(found, Decision) and found.model == names[0]
        assert found.ranking[0] == names[0] and len(found.scores) == 3
    messages = ({"role": "user", "content": PROMPTS[0]},)
    policy = {"models": ["small-3b"]}
    for found in both(
        url,
        lambda c: c.route(messages, router="default", policy=policy, deadline_ms=500),
        api_key=KEY,
    ):
        assert found.ranking == ("small-3b",)


def test_tasks_explanations_and_models(url, directory):
    router = Router.load(directory)
    labels = [{"maths-13b": 1.0, "small-3b": float("nan"), "general-70b": None}]
    expected = router.choose(PROMPTS, np.array([[np.nan, 1, np.nan]]), score="s1").to_dict()
    for found in both(url, lambda c: c.choose(PROMPTS, labels, score="s1"), api_key=KEY):
        assert {**found, **expected} == found and found["n_labels"] == 1
    labels = [{"maths-13b": 9.0}]
    for found in both(
        url, lambda c: c.choose(PROMPTS, labels, score="s1", label_threshold=5.0), api_key=KEY
    ):
        assert {**found, **expected} == found
    for found in both(url, lambda c: c.explain(PROMPTS[0]), api_key=KEY):
        assert found["neighbours"] and found["decision"]["model"] == found["model"]
    for found in both(url, lambda c: c.models(), api_key=KEY):
        assert [model["id"] for model in found["data"]] == list(MODELS)


def test_half_a_surrogate_pair_is_sent_as_a_question_mark(url):
    for found in both(url, lambda c: c.route("w1 \ud83d w2"), api_key=KEY):
        assert found.model == both(url, lambda c: c.route("w1 ? w2"), api_key=KEY)[0].model


def test_the_fields_are_those_of_the_engine():
    assert [field.name for field in fields(Decision)] == [field.name for field in fields(Routed)]


def test_refusals_say_what_the_service_said(url):
    with pytest.raises(Refused, match="^401 invalid_api_key: expected Authorization") as caught:
        both(url, lambda c: c.route("w1"), api_key="wrong")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    with pytest.raises(Refused, match="^422 too_many_prompts: found 6 prompts, expected at most 5"):
        both(url, lambda c: c.route_many(["w1"] * 6), api_key=KEY)
    with pytest.raises(Refused, match="^404 router_not_found"):
        both(url, lambda c: c.models("x"), api_key=KEY)


def test_the_key_comes_from_the_environment(url, monkeypatch):
    monkeypatch.setenv("BENCHROUTER_API_KEY", KEY)
    assert both(url + "/", lambda c: c.models())[0]["object"] == "list"
    monkeypatch.delenv("BENCHROUTER_API_KEY")
    with pytest.raises(Refused, match="401"):
        both(url, lambda c: c.models())


def test_arguments_are_checked():
    for wrong, message in (
        ({"base_url": "here:80"}, "base_url: found 'here:80', expected http"),
        ({"base_url": "http://x", "retries": -1}, "retries must be at least 0, got -1"),
        ({"base_url": "http://x", "timeout_s": 0}, "timeout_s must be above 0, got 0"),
        ({"base_url": "http://x", "api_key": "secret\n"}, "^api_key: expected printable ASCII"),
        ({"base_url": "http://x", "api_key": "clé"}, "^api_key: expected printable ASCII"),
    ):
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match=message):
                kind(**wrong)
    with pytest.raises(TypeError, match="a list of strings, got a single string"):
        Client("http://x").route_many("w1")


# --- trying again --------------------------------------------------------------------------------

ANSWER = {
    "decision": {field.name: None for field in fields(Decision)} | {"ranking": [], "scores": []}
}


def scripted(*steps):
    """Clients of both kinds of a service that does one step after the other."""
    seen = []

    def take(request):
        seen.append(time.monotonic())
        step = steps[min(len(seen), len(steps)) - 1]
        if isinstance(step, Exception):
            raise step
        status, headers, content = step
        return httpx.Response(status, headers=headers, content=content)

    return seen, take


OK = (200, {}, json.dumps(ANSWER).encode())
BUSY = (
    429,
    {"Retry-After": "0"},
    b'{"error": {"message": "later", "type": "x", "code": "overloaded"}}',
)


def outcome(take, **options):
    with Client("http://x", http=httpx.Client(transport=httpx.MockTransport(take)), **options) as c:
        return c.route("w1")


async def outcome_in_a_loop(take, **options):
    http = httpx.AsyncClient(transport=httpx.MockTransport(take))
    async with AsyncClient("http://x", http=http, **options) as client:
        return await client.route("w1")


kinds = pytest.mark.parametrize(
    "run", [outcome, lambda *a, **k: asyncio.run(outcome_in_a_loop(*a, **k))], ids=["sync", "async"]
)


@kinds
@pytest.mark.parametrize(
    "first",
    [
        BUSY,
        (503, {}, b"<html>"),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
        (503, {b"Retry-After": b"\xb2"}, b""),
        (200, {"Content-Encoding": "gzip"}, b"cut off"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=["429", "503", "a date", "no number", "broken", "no connection", "disconnected"],
)
def test_it_tries_again(run, first):
    seen, take = scripted(first, first, OK)
    assert isinstance(run(take, retries=2), Decision)
    assert len(seen) == 3 and 0.1 <= seen[1] - seen[0] < 1 and 0.2 <= seen[2] - seen[1] < 2


@kinds
def test_it_waits_as_long_as_it_is_told(run):
    seen, take = scripted((429, {"Retry-After": "1"}, b""), OK)
    run(take)
    assert 1 <= seen[1] - seen[0] < 2


@kinds
def test_it_gives_up(run):
    seen, take = scripted(BUSY)
    with pytest.raises(Overloaded, match="^429 overloaded: later"):
        run(take, retries=2)
    assert len(seen) == 3
    seen, take = scripted(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable, match="^POST http://x/v1/route: refused"):
        run(take, retries=1)
    assert len(seen) == 2


@kinds
@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_would_be_refused_again_is_not_tried_again(run, status):
    seen, take = scripted((status, {}, b"no JSON"), OK)
    with pytest.raises(Refused, match=f"^{status}: no JSON"):
        run(take)
    assert len(seen) == 1


@kinds
def test_retries_do_not_outlast_the_timeout(run):
    seen, take = scripted((503, {"Retry-After": "30"}, b""))
    started = time.monotonic()
    with pytest.raises(Overloaded):
        run(take, timeout_s=5.0, retries=5)
    assert len(seen) == 1 and time.monotonic() - started < 1


@kinds
def test_another_service_is_recognised(run):
    for content in (b"<html>", b"\xff"):
        _, take = scripted((200, {}, content))
        with pytest.raises(ServiceError, match="POST http://x/v1/route: found no JSON"):
            run(take)
    for content in (b"null", b"[]", b'"x"', b"1"):
        seen, take = scripted((200, {}, content))
        with pytest.raises(ServiceError, match="found JSON that is no object"):
            run(take)
        assert len(seen) == 1
    _, take = scripted((200, {}, b"{}"))
    with pytest.raises(ServiceError, match="found no decision"):
        run(take)


def test_a_service_that_hangs_is_left():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        started = time.monotonic()
        with pytest.raises(Unreachable, match="/v1/route: no answer in time$"):
            both(f"http://127.0.0.1:{deaf.getsockname()[1]}", lambda c: c.route("w"), timeout_s=0.3)
        assert time.monotonic() - started < 3


def test_it_needs_neither_torch_nor_numpy():
    code = (
        "import sys, benchrouter.client; print(sorted({'torch', 'numpy', 'pyarrow', 'fastapi', "
        "'transformers', 'benchrouter.serving'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_public_names():
    assert sorted(clients.__all__) == clients.__all__
    assert all(hasattr(clients, name) for name in clients.__all__)
