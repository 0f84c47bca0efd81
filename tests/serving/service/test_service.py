"""The HTTP service: what it answers, what it refuses, what it counts and logs."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import logging
import re
import time
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from tiny_encoder import prompts_of

from benchrouter import CostPolicy, Router
from benchrouter.serving import CAUSES, Engine, RoutePolicy

for package in ("fastapi", "httpx", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

import httpx  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from pydantic import ConfigDict, TypeAdapter  # noqa: E402
from served import MODELS, ask, write_router  # noqa: E402

from benchrouter.serving.service import (  # noqa: E402  # noqa: E402
    Metrics,
    Settings,
    bodies,
    decision_page,
    keys,
    make_app,
    process,
    requests,
    responses,
)

PROMPTS = prompts_of([3, 9, 5, 30, 7], seed=3)
KEY, OTHER_KEY = "k" * 40, "o" * 40


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_router(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def router(directory):
    return Router.load(directory)


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


@pytest.fixture(scope="module")
def engine(directory, metrics):
    with Engine(directory, deadline_s=30.0, reload_every_s=None, observers=[metrics]) as engine:
        yield engine


@pytest.fixture(scope="module")
def app(engine, metrics):
    return make_app(engine, metrics=metrics)


class Pretended:
    """An engine that is like another but for some attributes."""

    def __init__(self, engine, **attributes):
        self._engine = engine
        self.__dict__.update(attributes)

    def __getattr__(self, name):
        return getattr(self._engine, name)


def refusal(response):
    """Status and code of an error in OpenAI's shape."""
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "code"} and error["message"]
    assert "\n" not in error["message"]
    return response.status_code, error["code"]


def strictly(model, content):
    """Check an answer against its documented schema: every field there, and no other."""

    def closed(each):
        return type(each.__name__, (each,), {"model_config": ConfigDict(extra="forbid")})

    TypeAdapter(closed(model)).validate_python(content)


# --- answers -------------------------------------------------------------------------------------


def test_route_answers_what_the_router_chooses(app, router):
    expected = router.route(PROMPTS)
    many = ask(app, "POST", "/v1/route", {"prompts": PROMPTS})
    assert many.status_code == 200 and many.headers["content-type"] == "application/json"
    decisions = many.json()["decisions"]
    assert [d["model"] for d in decisions] == expected.names()
    assert [d["truncated"] for d in decisions] == [False, False, False, True, False]
    for i, prompt in enumerate(PROMPTS):
        one = ask(app, "POST", "/v1/route", {"prompt": prompt}).json()["decision"]
        assert one == {**decisions[i], "cached": True}
        assert one["score"] == pytest.approx(float(expected.score[i]))
        assert sorted(one["ranking"]) == sorted(MODELS) and one["ranking"][0] == one["model"]
        strictly(responses.Decision, one)


def test_route_reduces_messages_to_their_text(app):
    plain = ask(app, "POST", "/v1/route", {"prompt": PROMPTS[0]}).json()["decision"]
    messages = [
        {"role": "system", "content": "w7 w8"},
        {"role": "user", "content": [{"type": "text", "text": PROMPTS[0]}], "name": "x"},
    ]
    found = ask(app, "POST", "/v1/route", {"messages": messages}).json()["decision"]
    assert found == {**plain, "cached": True}


def test_route_takes_a_policy(app, router):
    policy = {"models": ["small-3b", "maths-13b", "elsewhere"], "costs": "models", "within": 1.0}
    found = ask(app, "POST", "/v1/route", {"prompt": PROMPTS[0], "policy": policy}).json()
    costs = {m["name"]: m["cost_usd"] for m in router.describe()["models"]}
    cheapest = min(("small-3b", "maths-13b"), key=costs.__getitem__)
    assert found["decision"]["model"] == cheapest
    assert set(found["decision"]["ranking"]) == {"small-3b", "maths-13b"}
    assert found["decision"]["cost_usd"] == pytest.approx(costs[cheapest], rel=1e-5)


@pytest.mark.parametrize("prompt", ["", " \n", "\0"])
def test_a_prompt_without_text_is_answered_with_the_fallback(app, prompt, router):
    found = ask(app, "POST", "/v1/route", {"prompt": prompt})
    assert found.status_code == 200
    decision = found.json()["decision"]
    if prompt.strip():
        assert decision["model"] in MODELS
    else:
        assert (decision["model"], decision["cause"]) == (router.fallback, "bad_prompt")
        strictly(responses.Decision, decision)


def test_a_deadline_is_the_requests_own(engine, metrics):
    async def never(prompts, **options):
        assert options["deadline_s"] == 0.25
        return await engine.route(prompts, deadline_s=1e-9)

    app = make_app(Pretended(engine, route=never))
    found = ask(app, "POST", "/v1/route", {"prompt": "w1 w2 w299", "deadline_ms": 250})
    assert found.json()["decision"]["cause"] == "deadline"


def test_choose_answers_what_the_router_chooses(app, router):
    expected = router.choose(PROMPTS).to_dict()
    found = ask(app, "POST", "/v1/choose", {"prompts": PROMPTS, "score": "auto"}).json()
    assert {**found, **expected} == found
    strictly(responses.TaskAnswer, found)
    labels = [{"maths-13b": 0, "small-3b": 1}, {}, {"general-70b": None, "maths-13b": 0.7}]
    matrix = np.array([[np.nan, 0, 1], [np.nan] * 3, [np.nan, 0.7, np.nan]])
    expected = router.choose(PROMPTS, matrix).to_dict()
    found = ask(app, "POST", "/v1/choose", {"prompts": PROMPTS, "labels": labels}).json()
    assert {**found, **expected} == found
    assert found["n_labels"] == 2


def test_a_task_among_some_models(app, router):
    asked = {"prompts": PROMPTS, "policy": {"models": ["small-3b", "maths-13b", "nobody's"]}}
    found = ask(app, "POST", "/v1/choose", asked).json()
    expected = router.choose(PROMPTS, models=["small-3b", "maths-13b"]).to_dict()
    assert {**found, **expected} == found
    assert found["expected_cost_usd"] is None
    asked["policy"] |= {"within": 1.0, "prices": {"maths-13b": [1, 1], "small-3b": [2, 2]}}
    asked["policy"]["output_tokens"] = 5
    found = ask(app, "POST", "/v1/choose", asked).json()
    assert found["model"] == "maths-13b" and found["expected_cost_usd"] > 0
    asked["policy"] = {"rule": "raw"}
    code, kind = refusal(ask(app, "POST", "/v1/choose", asked))
    assert (code, kind) == (422, "invalid_request")


def test_explain_answers_what_the_router_explains(app, router, engine):
    found = ask(app, "POST", "/v1/explain", {"prompt": PROMPTS[3]}).json()
    expected = router.explain(PROMPTS[3]).to_dict()
    assert {**found, **expected} == found
    info = engine.routers["default"]
    assert (found["router"], found["version"]) == ("default", info.version)
    assert found["truncated"] is True
    assert found["distance_limit"] == router.describe()["distance_limit"]
    assert len(found["benchmark_distances"]) == 4
    routed = ask(app, "POST", "/v1/route", {"prompt": PROMPTS[3]}).json()["decision"]
    assert found["decision"] == routed
    strictly(responses.ExplainAnswer, found)
    assert refusal(ask(app, "POST", "/v1/explain", {"prompt": " "})) == (422, "not_offered")


def test_answers_tell_the_chance_and_its_interval(app, router):
    expected = router.route(PROMPTS)
    found = ask(app, "POST", "/v1/route", {"prompts": PROMPTS}).json()["decisions"]
    assert [d["model"] for d in found] == expected.names()
    for name in ("chance", "chance_low", "chance_high"):
        told = np.float32([d[name] for d in found])
        np.testing.assert_array_equal(told, getattr(expected, name))
    body = {"prompt": PROMPTS[0], "policy": {"within": "auto"}}
    (expected,) = router.route(PROMPTS[:1], policy=CostPolicy(within="auto")).names()
    assert ask(app, "POST", "/v1/route", body).json()["decision"]["model"] == expected
    body = {"prompt": PROMPTS[0], "policy": {"rule": "mean"}}
    found = ask(app, "POST", "/v1/route", body).json()["decision"]
    assert found["score"] > 0 and found["chance"] is None and found["chance_low"] is None
    body = {"prompt": PROMPTS[0], "policy": {"k": 7}}
    message = ask(app, "POST", "/v1/explain", body).json()["error"]["message"]
    assert message == "policy: k is for the rules 'mean', 'raw' and 's3', found it with 'auto'"


def test_models_lists_models_and_routers(app, router, engine):
    found = ask(app, "GET", "/v1/models").json()
    strictly(responses.ModelsAnswer, found)
    assert [m["id"] for m in found["data"]] == list(MODELS)
    assert found["data"][1]["usd_per_million_tokens"] == [0.2, 0.2]
    (listed,) = found["routers"]
    assert listed["version"] == engine.routers["default"].version
    assert [d["n_records"] for d in listed["datasets"]] == [30] * 4
    assert ask(app, "GET", "/v1/models?router=default").json() == found
    assert refusal(ask(app, "GET", "/v1/models?router=x")) == (404, "router_not_found")


def test_the_router_is_named_where_there_are_several(engine, directory):
    two = Pretended(engine, routers={n: engine.routers["default"] for n in ("a", "b")})
    app = make_app(two)
    for path, body in (
        ("/v1/route", {"prompt": "w1"}),
        ("/v1/choose", {"prompts": ["w1"]}),
        ("/v1/explain", {"prompt": "w1"}),
    ):
        assert refusal(ask(app, "POST", path, body)) == (422, "router_needed")
        assert refusal(ask(app, "POST", path, {**body, "router": "c"})) == (404, "router_not_found")
    assert len(ask(app, "GET", "/v1/models").json()["data"]) == 6


def test_readiness_follows_the_engine(directory):
    engine = Engine(directory, reload_every_s=None)
    app = make_app(engine)
    assert ask(app, "GET", "/readyz").json() == {"status": "ready"}
    engine.close()
    found = ask(app, "GET", "/readyz")
    assert refusal(found) == (503, "not_ready") and int(found.headers["retry-after"]) >= 1
    assert ask(app, "GET", "/healthz").status_code == 200
    decision = ask(app, "POST", "/v1/route", {"prompt": "w1"}).json()["decision"]
    assert decision["cause"] == "closed"


# --- refusals ------------------------------------------------------------------------------------

DEEP = b'{"prompt":' + b"[" * 50_000
NO_JSON = [
    b"",
    b"{",
    b"{} {}",
    b'{"prompt": "\xff"}',
    b'{"prompt": "\\ud800"}',
    b"\xef\xbb\xbf{}",
    '{"prompt": "w1"}'.encode("utf-16"),
    b'{"prompt": ' + b"9" * 5000 + b"}",
    b'{"policy": {"within": nan}}',
    DEEP,
]
OTHER_JSON = [
    [],
    "w1",
    {},
    {"prompt": None},
    {"prompt": 1},
    {"prompt": ["w1"]},
    {"prompt": "w1", "prompts": ["w1"]},
    {"prompts": []},
    {"prompts": "w1"},
    {"prompts": ["w1", None]},
    {"messages": []},
    {"messages": [{"content": "w1"}]},
    {"messages": ["w1"]},
    {"prompt": "w1", "model": "x"},
    {"prompt": "w1", "router": 1},
    {"prompt": "w1", "deadline_ms": 0},
    {"prompt": "w1", "deadline_ms": "1"},
    {"prompt": "w1", "deadline_ms": True},
    {"prompt": "w1", "policy": []},
    {"prompt": "w1", "policy": {"rule": "best"}},
    {"prompt": "w1", "policy": {"k": 0}},
    {"prompt": "w1", "policy": {"k": 1.5}},
    {"prompt": "w1", "policy": {"models": []}},
    {"prompt": "w1", "policy": {"k": 7}},
    {"prompt": "w1", "policy": {"within": -1}},
    {"prompt": "w1", "policy": {"within": "much"}},
    {"prompt": "w1", "policy": {"within": "auto", "rule": "raw"}},
    {"prompt": "w1", "policy": {"within": 0.1, "cost_weight": 1}},
    {"prompt": "w1", "policy": {"prices": {"m": [1]}}},
    {"prompt": "w1", "policy": {"prices": {"other": [1, 1]}, "output_tokens": 9}},
    {"prompt": "w1", "policy": {"budget_usd": 1}},
]


@pytest.mark.parametrize("body", NO_JSON, ids=[str(body[:24]) for body in NO_JSON])
@pytest.mark.parametrize("path", ["/v1/route", "/v1/choose", "/v1/explain"])
def test_what_is_no_json_is_refused(app, path, body):
    assert refusal(ask(app, "POST", path, body)) == (400, "invalid_json")


@pytest.mark.parametrize("body", OTHER_JSON, ids=map(str, OTHER_JSON))
def test_other_json_is_refused(app, body):
    status, code = refusal(ask(app, "POST", "/v1/route", body))
    assert status == 422 and code in ("invalid_request", "invalid_policy", "not_offered")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(app, number):
    for text in (
        '{"prompt": "w1", "policy": {"within": %s}}',
        '{"prompt": "w1", "deadline_ms": %s}',
        '{"prompt": "w1", "policy": {"prices": {"small-3b": [%s, 1]}}}',
    ):
        found = refusal(ask(app, "POST", "/v1/route", (text % number).encode()))
        assert found == (422, "invalid_request")


def test_messages_say_where_and_what(app):
    body = {"prompt": "w1", "policy": {"rule": "best", "k": 0, "x": 1, "y": 2}}
    message = ask(app, "POST", "/v1/route", body).json()["error"]["message"]
    assert message.startswith(
        "policy.rule: Input should be 'auto', 'mean', 'raw' or 's3'; policy.k: "
    )
    assert message.endswith("; and 1 more")
    many = {"prompt": "w1", **{str(i): 1 for i in range(2000)}}
    message = ask(app, "POST", "/v1/route", many).json()["error"]["message"]
    assert message == "found 2,000 fields that are not expected"


def test_labels_that_do_not_fit_are_refused(app):
    for labels, code in (
        ([{"other": 1}], "unknown_model"),
        ([{}] * 3, "not_offered"),
        ([{"small-3b": "1"}], "invalid_request"),
        ([[1, 0, 1]], "invalid_request"),
        ([{"small-3b": 7}], "not_offered"),
    ):
        body = {"prompts": ["w1", "w2"], "labels": labels}
        assert refusal(ask(app, "POST", "/v1/choose", body)) == (422, code)


def test_labels_of_another_scale_are_held_against_a_threshold(app):
    found = [
        ask(app, "POST", "/v1/choose", {"prompts": ["w1", "w2"], **body}).json()["models"]
        for body in (
            {"labels": [{"small-3b": 7, "maths-13b": 3}], "label_threshold": 5},
            {"labels": [{"small-3b": 1, "maths-13b": 0}]},
        )
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/v1/", "/v1/route/", "//v1/route", "/v1//route", "/V1/route", "/v1/route%00"),
        *("/..%2fv1/route", "/v1%2f..%2fmetrics", "/static/..%2f../etc/passwd"),
        *(
            "/v1/route;x",
            "/favicon.ico",
            "/redoc",
            "/" + "a" * 5000,
            "/%ff",
            "/docs/oauth2-redirect",
        ),
    ],
)
def test_other_paths_are_not_found(app, path):
    for method in ("GET", "POST"):
        found = ask(app, method, path, {"prompt": "w1"})
        assert refusal(found) == (404, "not_found")


def test_other_methods_are_refused(app):
    for method, path in (
        *(("GET", "/v1/route"), ("DELETE", "/v1/route"), ("PUT", "/v1/choose")),
        *(("PUT", "/v1/models"), ("POST", "/metrics"), ("HEAD", "/v1/explain")),
    ):
        found = ask(app, method, path)
        assert found.status_code == 405 and found.headers["allow"] in ("GET", "POST")
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
        found = ask(app, "HEAD", path)
        assert found.status_code == 200 and found.content == b""


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "json", ""])
def test_only_json_is_read(app, kind):
    body = {"content": b'{"prompt": "w1"}', "headers": {"Content-Type": kind}}
    found = ask(app, "POST", "/v1/route", **body)
    assert refusal(found) == (415, "unsupported_media_type")
    assert found.headers["connection"] == "close"
    body["headers"]["Content-Type"] = "Application/JSON; charset=utf-8"
    assert ask(app, "POST", "/v1/route", **body).status_code == 200


def test_a_page_elsewhere_cannot_send_without_being_asked_first(app):
    """Browsers ask (OPTIONS) before they send JSON as such, but not where no type is told."""
    messages = [{"type": "http.request", "body": b'{"prompt": "w1"}', "more_body": False}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = scope_of("/v1/route", [(b"content-length", b"16")])
    scope["headers"].pop(0)
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 415
    found = ask(app, "OPTIONS", "/v1/route", headers={"Origin": "https://elsewhere.example"})
    assert found.status_code == 405
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_packed_bodies_are_refused_in_words(app):
    body = gzip.compress(b'{"prompt": "w1"}')
    found = ask(app, "POST", "/v1/route", body, headers={"Content-Encoding": "gzip"})
    assert refusal(found) == (415, "unsupported_media_type")
    assert "found Content-Encoding 'gzip', expected none" in found.text
    plain = {"Content-Encoding": "Identity"}
    assert ask(app, "POST", "/v1/route", {"prompt": "w1"}, headers=plain).status_code == 200


MANY = bodies.MAX_CONTAINERS


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[]," * MANY + b"[]]",
        b"[" + (b"[" * 150 + b"]" * 150 + b",") * 50_000 + b"[]]",
        b"[" + b'{"a": "]"},' * MANY + b"{}]",
    ],
    ids=["lists", "nested", "objects"],
)
def test_brackets_without_end_are_refused_before_they_are_parsed(app, content):
    body = b'{"messages": [{"role": "user", "content": %s}]}' % content
    started = time.monotonic()
    found = ask(app, "POST", "/v1/route", body)
    assert refusal(found) == (422, "too_many_values")
    assert f"expected at most {MANY:,}" in found.text
    assert time.monotonic() - started < 3


def test_brackets_within_texts_are_text(app):
    for prompt in ("w1 " + "[{" * MANY, 'w1 "' + '\\"[' * MANY):
        assert ask(app, "POST", "/v1/route", {"prompt": prompt}).status_code == 200


@hypothesis.given(
    st.recursive(
        st.text('a"\\[]{},\n', max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\[{', max_size=3), inner),
    )
)
def test_arrays_and_objects_are_counted(content):
    def count(each):
        if isinstance(each, str):
            return 0
        return 1 + sum(map(count, each.values() if isinstance(each, dict) else each))

    assert bodies.n_containers(json.dumps(content).encode()) == count(content)


class Endless(httpx.AsyncByteStream):
    """A body without a length, that counts what is taken of it."""

    def __init__(self, total):
        self.total, self.taken = total, 0

    async def __aiter__(self):
        while self.taken < self.total:
            self.taken += 1000
            yield b" " * 1000


def test_a_body_is_read_as_far_as_the_limit(engine):
    app = make_app(engine, Settings(max_body_bytes=10_000))
    fits = {"prompt": "w1 " * 3000}
    assert ask(app, "POST", "/v1/route", fits).status_code == 200
    found = ask(app, "POST", "/v1/route", {"prompt": "w1 " * 4000})
    assert refusal(found) == (413, "body_too_large") and "10,000" in found.text
    body = Endless(50_000_000)
    headers = {"Content-Type": "application/json"}

    async def send():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            request = client.build_request("POST", "/v1/route", headers=headers, content=body)
            return await client.send(request)

    found = asyncio.run(send())
    assert refusal(found) == (413, "body_too_large")
    assert found.headers["connection"] == "close"


def test_all_bodies_together_are_bounded(engine):
    """Of 40 bodies that end too late, those beyond 16 times the limit of one are refused."""
    app = make_app(engine, Settings(max_body_bytes=1000))
    statuses = []

    async def one(release):
        async def receive():
            if not sent:
                sent.append(True)
                return {"type": "http.request", "body": b" " * 900, "more_body": True}
            await release.wait()
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        sent = []
        await app(scope_of("/v1/route", [(b"transfer-encoding", b"chunked")]), receive, send)

    async def all_of_them():
        release = asyncio.Event()
        tasks = [asyncio.create_task(one(release)) for _ in range(40)]
        await asyncio.sleep(0.05)
        early = list(statuses)
        release.set()
        await asyncio.gather(*tasks)
        return early

    early = asyncio.run(all_of_them())
    assert early.count(429) == 40 - 17 and set(early) == {429}
    assert statuses.count(422) == 17


def scope_of(path, headers=(), method="POST", **more):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), *headers],
        "client": ("10.1.2.3", 5),
        "server": ("here", 80),
        **more,
    }


def test_more_prompts_than_allowed_are_refused(engine):
    app = make_app(engine, Settings(max_prompts=3))
    assert ask(app, "POST", "/v1/route", {"prompts": ["w1"] * 3}).status_code == 200
    found = ask(app, "POST", "/v1/route", {"prompts": ["w1"] * 4})
    assert refusal(found) == (422, "too_many_prompts")
    assert refusal(ask(app, "POST", "/v1/choose", {"prompts": ["w"] * 5001}))[0] == 422


def test_a_full_queue_is_told_with_retry_after(engine):
    app = make_app(Pretended(engine, queued=8), Settings(max_pending=10))
    for n, status in ((2, 200), (3, 429)):
        found = ask(app, "POST", "/v1/route", {"prompts": ["w1"] * n})
        assert found.status_code == status
    assert refusal(found) == (429, "overloaded")
    assert int(found.headers["retry-after"]) >= 1
    assert "connection" not in found.headers
    empty = make_app(Pretended(engine, queued=0), Settings(max_pending=10))
    assert ask(empty, "POST", "/v1/route", {"prompts": ["w1"] * 11}).status_code == 200


def test_so_many_tasks_at_once_and_no_more(engine):
    ended = []

    async def choose(prompts, labels=None, **options):
        await asyncio.sleep(0.05)
        ended.append(len(ended))
        return await engine.choose(prompts, labels, **options)

    app = make_app(Pretended(engine, choose=choose), Settings(max_tasks=2))

    async def all_of_them():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            ask_one = [client.post("/v1/choose", json={"prompts": ["w1"]}) for _ in range(5)]
            first = [found.status_code for found in await asyncio.gather(*ask_one)]
            return first, (await client.post("/v1/choose", json={"prompts": ["w1"]})).status_code

    first, later = asyncio.run(all_of_them())
    assert sorted(first) == [200, 200, 429, 429, 429] and later == 200


def test_who_goes_away_is_not_waited_for(engine, caplog):
    ended = []

    async def choose(prompts, labels=None, **options):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            ended.append(True)

    app = make_app(Pretended(engine, choose=choose), Settings(max_tasks=1))
    body = json.dumps({"prompts": ["w1"]}).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def go():
        async def receive():
            await asyncio.sleep(0.01)
            return messages.pop(0)

        async def send(message):
            pytest.fail("nobody is there")

        await app(scope_of("/v1/choose", [(b"content-length", b"20")]), receive, send)
        assert not ended
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            # its thread takes a moment to end, and keeps its turn as long
            busy = await client.post("/v1/choose", json={"prompts": ["w1"]})
            await asyncio.sleep(0.3)
            return busy.status_code

    with caplog.at_level(logging.INFO, "benchrouter.requests"):
        assert asyncio.run(go()) == 429
    assert ended and caplog.records[0].fields["status"] == 499


# --- keys ----------------------------------------------------------------------------------------

PUBLIC = ["/", "/healthz", "/readyz", "/openapi.json", "/docs"]
PRIVATE = ["/v1/route", "/v1/choose", "/v1/explain", "/v1/models", "/metrics", "/v1/x", "/x"]


@pytest.mark.parametrize("mounted", [False, True])
def test_a_key_is_asked_for(engine, mounted):
    app = make_app(engine, Settings(keys=(KEY, OTHER_KEY)))
    prefix = ""
    if mounted:
        outer, prefix = FastAPI(), "/models/router"
        outer.mount(prefix, app)
        app = outer
    for path in PRIVATE:
        for key in (
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer x",
            f"Basic {KEY}",
            KEY,
            f"Bearer {KEY}x",
        ):
            headers = {} if key is None else {"Authorization": key}
            found = ask(app, "GET", prefix + path, headers=headers)
            assert refusal(found) == (401, "invalid_api_key")
            assert found.headers["www-authenticate"] == "Bearer"
        for key in (KEY, OTHER_KEY):
            found = ask(app, "GET", prefix + path, headers={"authorization": f"bearer {key}"})
            assert found.status_code in (200, 404, 405)
    for path in PUBLIC:
        assert ask(app, "GET", prefix + path).status_code == 200
    two = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
    assert ask(app, "GET", prefix + "/metrics", headers=two).status_code == 401
    body = {"headers": {"Authorization": f"Bearer {KEY}"}}
    assert ask(app, "POST", prefix + "/v1/route", {"prompt": "w1"}, **body).status_code == 200


def test_every_key_is_compared_to_the_end(monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=compare))
    known = keys.Keys([KEY, OTHER_KEY, "short"])
    for given in (KEY, "short", "x" * 10_000):
        known.admit([(b"authorization", f"Bearer {given}".encode())])
    assert compared == [(32, 32)] * 9


def test_keys_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf# ours\r\n first-key \r\n\r\nsecond-key\r\n")
    assert keys.read_keys(path) == ("first-key", "second-key")
    for content, message in (
        (b"# none\n\n", "found no key"),
        (b"good\nwith blank\n", "line 2: expected a key of printable ASCII"),
        ("schlüssel\n".encode(), "line 1: expected a key"),
        (b"\xff\xfe", "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            keys.read_keys(path)
        assert str(path) in str(caught.value) and "blank" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "10.0.0.7:80")),
        *(
            (host, 200)
            for host in ("LOCALHOST.", "gateway", "x.svc.cluster.local", "a.localhost:1")
        ),
        *((host, 403) for host in ("evil.example:8000", "127.0.0.1.evil.example", "evil.example.")),
        *((host, 403) for host in ("notlocalhost.example", "evillocal.com", "1.2.3")),
    ],
)
def test_a_page_of_the_web_cannot_ask_under_its_own_name(engine, host, status):
    app = make_app(engine, Settings(only_local_names=True))
    for method, path in (("GET", "/v1/models"), ("GET", "/")):
        found = ask(app, method, path, headers={"Host": host})
        assert found.status_code == status
        if status == 403:
            assert refusal(found) == (403, "host_not_local")
    assert ask(make_app(engine), "GET", "/v1/models", headers={"Host": host}).status_code == 200


# --- the log -------------------------------------------------------------------------------------


def lines_of(app, *requests):
    """What is logged of requests, as the fields of each line."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log = logging.getLogger("benchrouter.requests")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        for method, path, body in requests:
            ask(app, method, path, body)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    return records


def test_a_line_for_every_request_without_its_prompt(app):
    secret = "w1 w2 w3 secret"
    records = lines_of(
        app,
        ("POST", "/v1/route", {"prompt": secret}),
        ("POST", "/v1/route", {"prompts": [secret, ""]}),
        ("POST", "/v1/route", {"messages": [{"role": "user", "content": secret}]}),
        ("POST", "/v1/explain", {"prompt": secret}),
        ("POST", "/v1/choose", {"prompts": [secret]}),
        ("POST", "/v1/route", {"prompt": secret, secret: 1}),
        ("POST", "/v1/route", {"prompt": secret, "policy": {"rule": secret}}),
    )
    fields = [record.fields for record in records]
    assert [f["status"] for f in fields] == [200] * 5 + [422] * 2
    assert fields[0]["router"] == "default" and fields[0]["model"] in MODELS
    assert fields[0]["cause"] in (None, *CAUSES)
    assert fields[1]["n_prompts"] == 2 and fields[1]["fallbacks"] >= 1
    assert all(f["duration_ms"] > 0 and f["method"] == "POST" for f in fields)
    assert all(f["client"] == "127.0.0.1" for f in fields)
    assert "secret" not in json.dumps(fields)


def test_prompts_are_logged_where_that_is_asked_for(engine):
    app = make_app(engine, Settings(log_prompts=True))
    records = lines_of(
        app,
        ("POST", "/v1/route", {"prompt": "w1 " * 5000}),
        ("POST", "/v1/route", {"prompts": ["w1", "w2"]}),
        ("POST", "/v1/route", {"messages": [{"role": "user", "content": "w3"}]}),
    )
    asked = [record.fields["asked"] for record in records]
    assert asked[0]["prompt"] == ("w1 " * 5000)[:2000] + "…"
    assert asked[1] == {"prompts": '["w1","w2"]'}
    assert json.loads(asked[2]["messages"]) == [{"role": "user", "content": "w3"}]


def test_no_line_where_none_is_wanted(engine):
    app = make_app(engine, Settings(log_requests=False))
    assert lines_of(app, ("POST", "/v1/route", {"prompt": "w1"})) == []


def test_probes_are_logged_where_something_is_wrong(engine):
    probes = [("GET", "/healthz", None), ("GET", "/readyz", None)]
    assert lines_of(make_app(engine), *probes) == []
    (record,) = lines_of(make_app(Pretended(engine, ready=False)), *probes)
    assert record.fields["path"] == "/readyz" and record.fields["status"] == 503
    (record,) = lines_of(make_app(engine), ("GET", "/" + "a" * 5000, None))
    assert len(record.fields["path"]) == 200


def test_a_failure_is_told_without_its_words(engine, caplog):
    async def route(*_, **__):
        raise RuntimeError("secret")

    @property
    def routers(self):
        raise RuntimeError("secret")

    broken = Pretended(engine, route=route)
    app = make_app(broken)
    found = ask(app, "POST", "/v1/route", {"prompt": "w1"})
    assert refusal(found) == (500, "internal_server_error") and "secret" not in found.text
    assert "RuntimeError" in caplog.text and "secret" in caplog.text
    assert ask(app, "POST", "/v1/explain", {"prompt": "w1"}).status_code == 500
    broken.routers = None
    assert refusal(ask(app, "GET", "/v1/models")) == (500, "internal_server_error")


# --- metrics -------------------------------------------------------------------------------------


def samples(text):
    """Values by name and labels, these in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happens(directory):
    metrics = Metrics()
    with Engine(directory, deadline_s=None, reload_every_s=None, observers=[metrics]) as engine:
        app = make_app(engine, metrics=metrics)
        ask(app, "POST", "/v1/route", {"prompts": PROMPTS})
        ask(app, "POST", "/v1/route", {"prompts": PROMPTS[:2]})
        ask(app, "POST", "/v1/route", {"prompt": ""})
        ask(app, "POST", "/v1/route", b"{")
        for i in range(50):
            ask(app, "GET", f"/elsewhere/{i}")
        directory.touch()
        engine.reload()
        found = ask(app, "GET", "/metrics")
        version = engine.routers["default"].version
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    counted = samples(found.text)
    assert counted["benchrouter_requests_total", "/v1/route", "200"] == 3
    assert counted["benchrouter_requests_total", "/v1/route", "400"] == 1
    assert counted["benchrouter_requests_total", "other", "404"] == 50
    assert counted["benchrouter_request_seconds_count", "/v1/route"] == 4
    assert counted["benchrouter_batch_prompts_sum", "cpu"] == len(PROMPTS)
    assert counted["benchrouter_batch_tokens_sum", "cpu"] > len(PROMPTS)
    assert counted["benchrouter_batch_seconds_count", "cpu"] >= 1
    assert counted["benchrouter_fallbacks_total", "bad_prompt"] == 1
    assert counted[("benchrouter_cache_hits_total",)] == 2
    assert counted[("benchrouter_queue_prompts",)] == 0
    assert counted["benchrouter_distance_count", "default"] == len(PROMPTS) + 2
    shares = [v for k, v in counted.items() if k[0] == "benchrouter_decisions_total"]
    assert sum(shares) == len(PROMPTS) + 3
    fallback = engine.routers["default"].fallback
    assert counted["benchrouter_router_info", fallback, "default", version] == 1
    ours = {name for name, *_ in counted if not name.startswith("process_")}
    assert all(name.startswith("benchrouter_") for name in ours)


def test_reloads_are_counted_and_only_the_version_served_is_shown(tmp_path):
    directory = write_router(tmp_path)
    metrics = Metrics()
    with Engine(directory, reload_every_s=None, observers=[metrics]) as engine:
        app = make_app(engine, metrics=metrics)
        before = engine.routers["default"].version
        write_router(tmp_path, seed=1)
        assert engine.reload() == ["default"]
        (directory / "router.json").write_text("{")
        engine.reload()
        counted = samples(ask(app, "GET", "/metrics").text)
        listed = ask(app, "GET", "/v1/models").json()["routers"][0]
    assert counted["benchrouter_reloads_total", "done", "default"] == 1
    assert counted["benchrouter_reloads_total", "failed", "default"] == 1
    versions = [k[3] for k in counted if k[0] == "benchrouter_router_info"]
    assert len(versions) == 1 and versions != [before]
    assert listed["version"] == versions[0] and listed["error"]


def test_two_services_count_apart(engine):
    apps = [make_app(engine), make_app(engine)]
    ask(apps[0], "GET", "/healthz")
    counted = [samples(ask(app, "GET", "/metrics").text) for app in apps]
    key = ("benchrouter_requests_total", "/healthz", "200")
    assert counted[0][key] == 1 and key not in counted[1]


# --- documents -----------------------------------------------------------------------------------


ANSWERS = {
    "/v1/route": (responses.OneDecision, responses.ManyDecisions),
    "/v1/choose": (responses.TaskAnswer,),
    "/v1/explain": (responses.ExplainAnswer,),
}


def test_examples_are_answered_and_answers_are_as_documented(app):
    shown = ask(app, "GET", "/openapi.json").json()["components"]["schemas"]
    for path, name in (
        ("/v1/route", "RouteRequest"),
        ("/v1/choose", "ChooseRequest"),
        ("/v1/explain", "ExplainRequest"),
    ):
        assert len(shown[name]["examples"]) >= 2
        for body in shown[name]["examples"]:
            found = ask(app, "POST", path, body)
            assert found.status_code == 200, (path, body, found.text)
            strictly(ANSWERS[path][-1 if "prompts" in body else 0], found.json())
    every = [model for models in ANSWERS.values() for model in models]
    for model in (*every, responses.ModelsAnswer, responses.ErrorAnswer):
        assert len(shown[model.__name__]["examples"]) == 1
        (content,) = model.model_config["json_schema_extra"]["examples"]  # FastAPI drops nulls
        strictly(model, content)


def test_statuses_are_documented_and_examples_are_those_of_the_service(engine):
    app = make_app(engine, Settings(keys=(KEY,), max_prompts=1000))
    open_app = make_app(engine, Settings(only_local_names=True))
    headers = {"Authorization": f"Bearer {KEY}"}
    found = {
        400: ask(app, "POST", "/v1/route", b"", headers=headers),
        401: ask(app, "POST", "/v1/route", {"prompt": "w1"}),
        403: ask(open_app, "GET", "/v1/models", headers={"Host": "example.com"}),
        404: ask(app, "POST", "/v1/route", {"prompt": "w1", "router": "code"}, headers=headers),
        422: ask(app, "POST", "/v1/route", {"prompts": ["w1"] * 1200}, headers=headers),
    }
    document = ask(app, "GET", "/openapi.json").json()
    documented = document["paths"]["/v1/route"]["post"]["responses"]
    assert set(documented) == {"200", *map(str, (400, 401, 403, 404, 408, 413, 415, 422, 429))}
    for status, response in found.items():
        assert response.status_code == status
        shown = documented[str(status)]
        assert shown["description"] == responses.MESSAGES[status]
        reference = shown["content"]["application/json"]["schema"]["$ref"]
        assert reference.endswith("/ErrorAnswer")
        strictly(responses.ErrorAnswer, response.json())
    assert found[422].json() == document["components"]["schemas"]["ErrorAnswer"]["examples"][0]


def test_the_document_tells_limits_and_keys(engine):
    open_app = make_app(engine, Settings(max_prompts=7))
    document = ask(open_app, "GET", "/openapi.json").json()
    prompts = document["components"]["schemas"]["RouteRequest"]["properties"]["prompts"]
    assert prompts["anyOf"][0]["maxItems"] == 7
    assert "securitySchemes" not in document["components"]
    others = ("/v1/models", "/healthz", "/readyz", "/metrics")
    assert set(document["paths"]) == {*ANSWERS, *others}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"] and operation["description"]
    keyed = ask(make_app(engine, Settings(keys=(KEY,))), "GET", "/openapi.json").json()
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert keyed["paths"]["/v1/route"]["post"]["security"] == [{"key": []}]
    assert "security" not in keyed["paths"]["/healthz"]["get"]


def test_causes_and_policies_are_those_of_the_engine():
    document = TypeAdapter(responses.Decision).json_schema()
    assert set(document["properties"]["cause"]["anyOf"][0]["enum"]) == set(CAUSES)
    fields = set(RoutePolicy.__dataclass_fields__) - {"budget_usd"}  # prompts come one by one
    assert set(requests.Policy.model_fields) == fields


def test_the_page_is_served_under_its_policy(app):
    found = ask(app, "GET", "/")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["content-security-policy"] == decision_page.policy_of(found.text)


def test_a_page_may_run_its_own_scripts_and_no_others():
    policy = decision_page.policy_of(
        "<style>a{}</style><script>b()</script><script type='x'>c()</script>"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert len(re.findall("sha256-", policy)) == 3 and "unsafe" not in policy
    assert "script-src 'none'; style-src 'none'" in decision_page.policy_of("<p>nothing</p>")


def test_idle_connections_are_kept_longer_than_by_load_balancers():
    assert process.KEEP_ALIVE_S > 60
