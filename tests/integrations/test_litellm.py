"""Routing inside LiteLLM: its SDK against servers that break, its requests in all shapes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from served import MODELS, write_router
from tiny_encoder import prompts_of
from upstream import Upstream

from benchrouter import Router
from benchrouter.embeddings import Encoder
from benchrouter.serving import Engine, Observer, RoutePolicy

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no network
litellm = pytest.importorskip(
    "litellm", reason="litellm is not here, but where make test-slow runs"
)

from litellm.integrations.custom_logger import CustomLogger  # noqa: E402
from litellm.responses.utils import ResponsesAPIRequestUtils  # noqa: E402

from benchrouter.client import AsyncClient, Client  # noqa: E402
from benchrouter.integrations import litellm as integration  # noqa: E402
from benchrouter.integrations.litellm import Routing  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "litellm.md"
VIRTUAL = "benchrouter/default"
# Of LiteLLM's own types.
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier")


class Seen(Observer):
    def __init__(self):
        self.prompts = []

    def answered(self, routed, prompt, seconds):
        self.prompts.append(prompt)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("litellm")


@pytest.fixture(scope="module")
def router(folder):
    return Router.load(write_router(folder))


@pytest.fixture(scope="module")
def seen():
    return Seen()


@pytest.fixture(scope="module")
def engine(folder, router, seen):
    options = {"deadline_s": 20.0, "reload_every_s": None, "observers": [seen]}
    with Engine(folder / "router", **options) as engine:
        yield engine


@pytest.fixture
def upstreams():
    """A server for every model."""
    found = {name: Upstream() for name in MODELS}
    yield found
    for upstream in found.values():
        upstream.kill()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Leave LiteLLM's callbacks as they were, and its log out."""
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)
    before = list(litellm.callbacks)
    yield
    litellm.callbacks[:] = before


def made(source, upstreams, *, info=None, routing=None, **options):
    """LiteLLM's Router over some upstreams, with routing before it."""
    deployments = [
        {
            "model_name": name,
            "litellm_params": {"model": f"hosted_vllm/{name}", "api_base": upstream.url},
            "model_info": {"id": f"id of {name}", **((info or {}).get(name) or {})},
        }
        for name, upstream in upstreams.items()
    ]
    inner = litellm.Router(model_list=deployments, **{"num_retries": 0, **options})
    return integration.Router(inner, Routing(source, **(routing or {})))


def wait_until(true, seconds=10.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def user(text):
    return [{"role": "user", "content": text}]


def content(response):
    return response.choices[0].message.content.removeprefix("I am ")


def told(response):
    headers = response._hidden_params["additional_headers"]
    return {k: v for k, v in headers.items() if k.startswith("x-benchrouter")}


def all_of(router, texts, at_once=32):
    """Answers to many requests, some at once."""

    async def ask():
        room = asyncio.Semaphore(at_once)

        async def one(text):
            async with room:
                return content(await router.acompletion(VIRTUAL, user(text)))

        return await asyncio.gather(*map(one, texts))

    return asyncio.run(ask())


def first_with(router, model):
    """A prompt that goes to a model, and its ranking."""
    prompts = prompts_of([4, 9, 6, 3] * 30, seed=8)
    ranking = router.rank(prompts)
    names = ranking.decisions.names()
    i = names.index(model)
    return prompts[i], [MODELS[m] for m in ranking.order[i]]


# --- decisions -----------------------------------------------------------------------------------


def test_decisions_are_those_of_the_router(router, engine, upstreams):
    prompts = prompts_of([4, 9, 6, 3] * 25, seed=1)
    expected = router.route(prompts).names()
    assert len(set(expected)) > 1
    assert all_of(made(engine, upstreams), prompts) == expected


def test_only_models_with_a_deployment_are_chosen(router, engine, upstreams):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=1)
    two = list(MODELS[1:])
    expected = router.rank(prompts, models=two).decisions.names()
    assert MODELS[0] in router.route(prompts).names()
    chosen = made(engine, {name: upstreams[name] for name in two})
    assert all_of(chosen, prompts) == expected
    for prompt, model in zip(prompts, expected, strict=True):
        request = {"model": VIRTUAL, "messages": user(prompt)}
        chosen._routing.prepare_blocking(request, chosen._router)
        assert request["metadata"]["benchrouter"]["model"] == model


def test_a_deployment_says_which_model_of_the_benchmark_it_is(router, engine, upstreams):
    prompt, _ = first_with(router, "maths-13b")
    renamed = {"ours": upstreams["maths-13b"], "other": upstreams["small-3b"]}
    chosen = made(engine, renamed, info={"ours": {"benchrouter": "maths-13b"}})
    response = asyncio.run(chosen.acompletion(VIRTUAL, user(prompt)))
    assert content(response) == "ours"
    assert told(response)["x-benchrouter-model"] == "ours"


def test_deployments_that_are_paused_or_of_a_team_or_a_wildcard_are_not_chosen(engine, router):
    prompt, ranking = first_with(router, "maths-13b")
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    info = {
        "maths-13b": {"blocked": True},
        "of a team": {"team_id": "7", "benchrouter": "maths-13b"},
        "maths/*": {"benchrouter": "maths-13b"},
    }
    chosen = made(engine, dict.fromkeys([*MODELS, *info], nowhere), info=info)
    request = {"model": VIRTUAL, "messages": user(prompt)}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert [request["model"], *request["fallbacks"]] == ranking[1:]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (MODELS, MODELS),
        (["small-3b", "general-70b"], ["general-70b", "small-3b"]),
        (["small-3b"], ["small-3b"]),
        (["alias"], ["alias"]),
        ([VIRTUAL], MODELS),
    ],
)
def test_callers_get_what_they_may_use_by_name(engine, router, allowed, expected):
    prompt, ranking = first_with(router, "maths-13b")
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")

    async def check(*, model, request_kwargs, **router):
        assert request_kwargs["messages"] == user(prompt)
        return model in allowed

    options = {"fallback_access_check": check, "model_group_alias": {VIRTUAL: "alias"}}
    chosen = made(engine, dict.fromkeys(["alias/*", *MODELS], nowhere), **options)
    request = {"model": VIRTUAL, "messages": user(prompt)}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    found = [request["model"], *request["fallbacks"]]
    assert found == sorted(expected, key=[*ranking, "alias"].index)
    reason = request["metadata"]["benchrouter"]["reason"]
    assert reason.endswith(f"; this key may not use {ranking[0]}") == (found[0] != ranking[0])


def test_no_more_is_checked_than_litellm_tries(engine):
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    copies = [f"maths {i}" for i in range(100)]
    checked = []

    async def check(*, model, request_kwargs, **router):
        checked.append(model)
        return len(checked) > 10

    info = {name: {"id": name, "benchrouter": "maths-13b"} for name in copies}
    options = {"fallback_access_check": check, "max_fallbacks": 3}
    chosen = made(engine, dict.fromkeys(copies, nowhere), info=info, **options)
    request = {"model": VIRTUAL, "messages": user("w1")}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert checked == copies[:14]
    assert [request["model"], *request["fallbacks"]] == copies[10:14]


def test_a_response_is_continued_by_the_model_that_gave_it(engine, router, seen):
    prompt, ranking = first_with(router, "maths-13b")
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    chosen = made(engine, dict.fromkeys(MODELS, nowhere))
    seen.prompts.clear()

    def request_after(model_id):
        response = ResponsesAPIRequestUtils._build_responses_api_response_id(
            custom_llm_provider="hosted_vllm", model_id=model_id, response_id="resp_1"
        )
        request = {"model": VIRTUAL, "input": prompt, "fallbacks": ["own"]}
        prepared = chosen._routing.prepare(request, chosen._router, "input", response)
        asyncio.run(prepared)
        return request

    request = request_after(f"id of {ranking[1]}")
    assert (request["model"], request["fallbacks"]) == (ranking[1], ["own"])
    reason = request["metadata"]["benchrouter"]["reason"]
    assert reason == f"continues a response of {ranking[1]}"
    assert seen.prompts == []
    assert request_after("id of nothing")["model"] == ranking[0]


def test_several_groups_of_one_model_come_after_each_other(engine, router):
    prompt, _ = first_with(router, "maths-13b")
    marked = {"eu": {"benchrouter": "maths-13b"}, "us": {"benchrouter": "maths-13b"}}
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    chosen = made(engine, dict.fromkeys(["small-3b", "eu", "us"], nowhere), info=marked)
    request = {"model": VIRTUAL, "messages": user(prompt)}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert [request["model"], *request["fallbacks"]] == ["eu", "us", "small-3b"]


def test_a_policy_by_name(router, engine, upstreams):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=2)
    policy = RoutePolicy(cost_weight=100.0)
    expected = router.rank(prompts, policy=policy, models=list(MODELS))
    assert expected.decisions.names() != router.route(prompts).names()
    chosen = made(engine, upstreams, routing={"policies": {"cheap": policy}})
    answers = [chosen.completion(f"{VIRTUAL}:cheap", user(prompt)) for prompt in prompts]
    assert [content(answer) for answer in answers] == expected.decisions.names()


def test_a_policy_may_allow_fewer_models(engine, upstreams):
    routing = {"policy": RoutePolicy(models=("small-3b", "never-heard-of"))}
    chosen = made(engine, upstreams, routing=routing)
    assert set(all_of(chosen, prompts_of([4, 9, 6], seed=3))) == {"small-3b"}


def test_other_models_are_not_touched(engine, upstreams, seen):
    chosen = made(engine, upstreams)
    n_seen = len(seen.prompts)
    response = asyncio.run(chosen.acompletion("small-3b", user("w1 w2")))
    assert content(response) == "small-3b"
    assert told(response) == {}
    embedded = asyncio.run(chosen.aembedding(model="small-3b", input=["w1"]))
    assert embedded.data[0]["embedding"] == [0.6, 0.8]
    assert len(seen.prompts) == n_seen


@pytest.mark.parametrize("name", ["benchrouter/none", f"{VIRTUAL}:none", "benchrouter/"])
def test_names_that_nobody_knows_are_refused_by_litellm(engine, upstreams, name):
    chosen = made(engine, upstreams)
    with pytest.raises(litellm.BadRequestError, match=re.escape(name)):
        asyncio.run(chosen.acompletion(name, user("w1 w2")))


# --- prompts -------------------------------------------------------------------------------------

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (user("w1 w2"), "w1 w2"),
        ([{"role": "system", "content": "w9"}, *user("w1")], "w1"),
        (user([{"type": "text", "text": "w1"}, PICTURE, {"type": "text", "text": "w2"}]), "w1\nw2"),
        (
            [
                *user("w5"),
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "w7"},
            ],
            "w5",
        ),
        (user("w3 " * 350_000), ("w3 " * 350_000)[:200_000]),
        (user([PICTURE]), None),
        (user(""), None),
        (user("\udcff"), "\udcff"),
    ],
    ids=["text", "system", "parts", "tools", "1 MB", "picture", "empty", "surrogate"],
)
def test_messages_of_any_shape_are_answered(engine, upstreams, seen, messages, text):
    seen.prompts.clear()
    request = {"model": VIRTUAL, "messages": messages}
    chosen = made(engine, upstreams)
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert request["model"] in MODELS
    wait_until(lambda: seen.prompts)
    assert seen.prompts == [text]
    if text != "\udcff":  # which no request can carry
        response = asyncio.run(chosen.acompletion(VIRTUAL, messages, tools=None))
        assert content(response) == request["model"]


@pytest.mark.parametrize("messages", [None, [], "w1", [None], [{}], ["w1", "w2"], 7, [[1]]])
def test_messages_of_no_shape_are_left_to_litellm(engine, upstreams, messages):
    request = {"model": VIRTUAL, "messages": messages}
    chosen = made(engine, upstreams)
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert request["model"] in MODELS
    assert request["messages"] == messages


@pytest.mark.parametrize(
    ("argument", "given", "text"),
    [
        ("input", "w1", "w1"),
        (
            "input",
            [
                {"role": "user", "content": [{"type": "input_text", "text": "w1"}]},
                {"type": "function_call_output", "call_id": "1", "output": "w2"},
            ],
            "w1",
        ),
        ("prompt", "w1", "w1"),
        ("prompt", ["w1", "w2"], "w1\nw2"),
    ],
)
def test_inputs_of_other_endpoints(engine, upstreams, seen, argument, given, text):
    seen.prompts.clear()
    chosen = made(engine, upstreams)
    request = {"model": VIRTUAL, argument: given}
    asyncio.run(chosen._routing.prepare(request, chosen._router, argument))
    wait_until(lambda: seen.prompts)
    assert seen.prompts == [text]


def test_streams(router, engine, upstreams):
    prompt, _ = first_with(router, "maths-13b")
    chosen = made(engine, upstreams)

    async def read():
        response = await chosen.acompletion(VIRTUAL, user(prompt), stream=True)
        assert told(response)["x-benchrouter-model"] == "maths-13b"
        return [chunk.choices[0].delta.content or "" async for chunk in response]

    pieces = asyncio.run(read())
    assert len(pieces) > 2
    assert "".join(pieces) == "I am maths-13b"


# --- models that do not answer -------------------------------------------------------------------


def test_a_model_that_fails_is_passed_over_until_it_answers(router, engine, upstreams):
    prompt, (best, second, _) = first_with(router, "general-70b")
    chosen = made(engine, upstreams, cooldown_time=0.7)

    def ask():
        response = chosen.completion(VIRTUAL, user(prompt))
        return content(response), told(response)

    upstreams[best].status = 500
    answer, headers = ask()
    assert answer == second
    assert headers["x-benchrouter-model"] == best
    n_asked = len(upstreams[best].requests)
    answer, headers = ask()
    assert answer == second
    assert headers["x-benchrouter-model"] == second
    assert headers["x-benchrouter-reason"].endswith(f"; {best} does not answer at the moment")
    assert len(upstreams[best].requests) == n_asked
    time.sleep(0.8)  # now one request tries
    answers = all_of(chosen, [prompt] * 8)
    assert answers == [second] * 8
    assert len(upstreams[best].requests) == n_asked + 1
    upstreams[best].status = 200
    time.sleep(0.8)
    assert ask()[0] == best
    assert ask()[0] == best


def test_a_request_that_is_bad_does_not_count_against_the_model(router, engine, upstreams):
    prompt, (best, *_) = first_with(router, "general-70b")
    chosen = made(engine, upstreams)
    for upstream in upstreams.values():
        upstream.status = 400
    with pytest.raises(litellm.BadRequestError):
        chosen.completion(VIRTUAL, user(prompt))
    for upstream in upstreams.values():
        upstream.status = 200
    assert content(chosen.completion(VIRTUAL, user(prompt))) == best


@pytest.mark.parametrize("own", [{"timeout": 0.001}, {"api_key": "of the caller"}])
def test_what_callers_bring_about_does_not_count(router, engine, upstreams, own):
    prompt, (best, *_) = first_with(router, "general-70b")
    chosen = made(engine, upstreams, disable_cooldowns=True)
    for upstream in upstreams.values():
        upstream.status = 401
    with pytest.raises((litellm.AuthenticationError, litellm.Timeout)):
        chosen.completion(VIRTUAL, user(prompt), **own)
    for upstream in upstreams.values():
        upstream.status = 200
    assert content(chosen.completion(VIRTUAL, user(prompt))) == best


def test_limits_of_the_proxy_and_other_requests_do_not_count(engine):
    class Limit(Exception):
        status_code = 429

    routing = Routing(engine)
    told = integration._Told(deployment="small-3b")
    broken = litellm.InternalServerError("broken", llm_provider="openai", model="small-3b")
    for metadata, error in (
        ({"benchrouter": told}, Limit()),
        ({"benchrouter": dict(told)}, broken),  # as a caller may write
        ({}, broken),
    ):
        asyncio.run(routing.async_post_call_failure_hook({"metadata": metadata}, error, None))
        request = {"litellm_metadata": metadata}
        asyncio.run(routing.log_success_fallback_event("small-3b", request, error))
    assert routing._failed_at == {}
    request = {"litellm_metadata": {"benchrouter": told}}
    asyncio.run(routing.async_post_call_failure_hook(request, broken, None))
    assert list(routing._failed_at) == ["small-3b"]


def test_a_failure_without_a_fallback_is_remembered_too(router, engine, upstreams):
    prompt, (best, second, _) = first_with(router, "general-70b")
    chosen = made(engine, upstreams)
    upstreams[best].status = 500
    with pytest.raises(litellm.InternalServerError):
        chosen.completion(VIRTUAL, user(prompt), disable_fallbacks=True)
    assert content(chosen.completion(VIRTUAL, user(prompt), disable_fallbacks=True)) == second


def test_a_model_that_cools_down_is_passed_over(router, engine, upstreams):
    prompt, (best, second, _) = first_with(router, "general-70b")
    chosen = made(engine, upstreams)
    cooldowns = integration.Gateway(chosen._router)._cooldowns
    cooldowns.add_deployment_to_cooldown(f"id of {best}", RuntimeError("broken"), 500, 60.0)
    for answer in (
        asyncio.run(chosen.acompletion(VIRTUAL, user(prompt))),
        chosen.completion(VIRTUAL, user(prompt)),
    ):
        assert content(answer) == second
        assert told(answer)["x-benchrouter-model"] == second
    assert upstreams[best].requests == []


def test_where_nothing_answers_the_ranking_stays(router, engine, upstreams):
    prompt, ranking = first_with(router, "general-70b")
    chosen = made(engine, upstreams)
    cooldowns = integration.Gateway(chosen._router)._cooldowns
    for name in MODELS:
        cooldowns.add_deployment_to_cooldown(f"id of {name}", RuntimeError("broken"), 500, 60.0)
    request = {"model": VIRTUAL, "messages": user(prompt)}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert [request["model"], *request["fallbacks"]] == ranking


def test_fallbacks_of_others_come_after_the_ranking(router, engine, upstreams):
    prompt, ranking = first_with(router, "general-70b")
    configured = [{VIRTUAL: ["a"]}, {"small-3b": ["b"]}, {"*": ["c", ranking[1]]}]
    chosen = made(engine, upstreams, fallbacks=configured)

    def fallbacks_of(**given):
        request = {"model": VIRTUAL, "messages": user(prompt), **given}
        asyncio.run(chosen._routing.prepare(request, chosen._router))
        return request["fallbacks"]

    assert fallbacks_of() == [*ranking[1:], "a", "c"]
    assert fallbacks_of(fallbacks=["d"]) == [*ranking[1:], "d"]
    other = {"model": "d", "temperature": 0.0}
    assert fallbacks_of(fallbacks=[other]) == [*({"model": m} for m in ranking[1:]), other]


@pytest.mark.slow
def test_no_request_is_lost_with_an_upstream(router, engine, upstreams):
    prompts = prompts_of([4, 9, 6, 3] * 250, seed=4)
    ranking = router.rank(prompts)
    best, second = ([MODELS[m] for m in ranking.order[:, rank]] for rank in (0, 1))
    assert best == router.route(prompts).names()
    dead = max(MODELS, key=best[500:].count)
    chosen = made(engine, upstreams)
    assert all_of(chosen, prompts[:300]) == best[:300]

    async def half_way():
        answers = asyncio.create_task(asyncio.to_thread(all_of, chosen, prompts[300:]))
        while sum(len(upstream.requests) for upstream in upstreams.values()) < 600:
            await asyncio.sleep(0.01)
        upstreams[dead].kill()
        return await answers

    answers = asyncio.run(half_way())
    upstreams[dead].start()  # to be killed again
    assert len(answers) == 700
    n_moved = 0
    for answer, first, next_best in zip(answers, best[300:], second[300:], strict=True):
        assert answer == first or (first == dead and answer == next_best)
        n_moved += answer != first
    assert 0 < n_moved < best[300:].count(dead)


# --- benchrouter that does not answer ------------------------------------------------------------


@pytest.fixture
def nowhere():
    """The address of a service that is down."""
    upstream = Upstream()
    upstream.kill()
    return upstream.url


def test_without_the_service_the_alias_answers(nowhere, upstreams, caplog):
    client = AsyncClient(nowhere, timeout_s=2.0)
    chosen = made(client, upstreams, model_group_alias={VIRTUAL: "small-3b"})
    start = time.monotonic()
    assert all_of(chosen, [f"w{i}" for i in range(40)]) == ["small-3b"] * 40
    assert time.monotonic() - start < 10
    lines = [r.message for r in caplog.records if "benchrouter could not be asked" in r.message]
    assert 0 < len(lines) <= 32  # those in flight at first; the rest is not even tried
    assert "Unreachable" in lines[0]


def test_without_the_service_and_an_alias(nowhere, upstreams):
    some = {"embed": {"mode": "embedding"}, "small-3b": {"benchrouter": "small-3b"}}
    client = AsyncClient(nowhere, retries=0)
    deployed = {"embed": upstreams["general-70b"], **upstreams}
    assert all_of(made(client, deployed, info={"embed": some["embed"]}), ["w1"]) == [MODELS[0]]
    assert all_of(made(client, deployed, info=some), ["w1"]) == ["small-3b"]


def test_the_last_ranking_of_a_service_is_kept(router, engine, upstreams, monkeypatch):
    prompt, ranking = first_with(router, "small-3b")
    client = Client("http://127.0.0.1:9", retries=0)
    monkeypatch.setattr(client, "route", lambda *_, **options: engine.route_blocking(prompt))
    chosen = made(client, {"unrelated": upstreams["small-3b"], **upstreams})
    assert all_of(chosen, [prompt]) == ranking[:1]
    monkeypatch.undo()
    request = {"model": VIRTUAL, "messages": user(prompt)}
    chosen._routing.prepare_blocking(request, chosen._router)
    assert [request["model"], *request["fallbacks"]] == ranking
    assert request["metadata"]["benchrouter"]["reason"] == "benchrouter could not be asked"


def test_threads_need_a_client_for_threads(upstreams, caplog):
    chosen = made(AsyncClient("http://127.0.0.1:9"), upstreams)
    assert content(chosen.completion(VIRTUAL, user("w1"))) == MODELS[0]
    assert "completion needs an Engine or a Client, got an AsyncClient" in caplog.text


def test_an_engine_that_is_closed_answers_by_the_best_on_average(folder, router, upstreams):
    with Engine(folder / "router", reload_every_s=None) as closed:
        pass
    chosen = made(closed, upstreams)
    response = asyncio.run(chosen.acompletion(VIRTUAL, user("w1 w2")))
    assert content(response) == router.fallback
    assert told(response)["x-benchrouter-reason"] == "the engine is closed"


def test_whatever_breaks_here_the_request_goes_on(engine, upstreams, monkeypatch, caplog):
    chosen = made(engine, upstreams, model_group_alias={VIRTUAL: "small-3b"})
    monkeypatch.setattr(integration, "Gateway", lambda router: 1 / 0)
    assert content(chosen.completion(VIRTUAL, user("w1"))) == "small-3b"
    assert "a request for 'benchrouter/default' is left as it is" in caplog.text


class Stretches:
    """Awaits a coroutine, and measures how long it keeps the loop at a time."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self.wall, self.cpu = [], []

    def __await__(self):
        steps = self._coroutine.__await__()
        while True:
            wall, cpu = time.monotonic(), time.thread_time()
            try:
                waits_for = next(steps)
            except StopIteration:
                return
            finally:
                self.wall.append(time.monotonic() - wall)
                self.cpu.append(time.thread_time() - cpu)
            yield waits_for


@pytest.mark.parametrize("kind", ["engine", "client"])
@pytest.mark.parametrize("rest", ["", " w3" * 350_000], ids=["short", "1 MB"])
def test_the_event_loop_is_never_blocked(engine, monkeypatch, kind, rest):
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    deployments = [*MODELS, *(f"other-{i}" for i in range(500))]
    client = Client(nowhere.url)
    chosen = made(engine if kind == "engine" else client, dict.fromkeys(deployments, nowhere))
    plain = Encoder.encode_tensor

    def slowly(encoder, prompts, **options):
        time.sleep(1.0)
        return plain(encoder, prompts, **options)

    monkeypatch.setattr(Encoder, "encode_tensor", slowly)
    ask = engine.route_blocking
    monkeypatch.setattr(client, "route", lambda prompt, *, router, policy: ask(prompt))

    async def longest(run):
        request = {"model": VIRTUAL, "messages": user(f"{kind} {run}{rest}")}
        stretches = Stretches(chosen._routing.prepare(request, chosen._router))
        start = time.monotonic()
        await stretches
        assert time.monotonic() - start > 1.0  # it was encoded
        assert request["model"] in MODELS
        return max(stretches.wall), max(stretches.cpu)

    gc.disable()  # it would run within a stretch, whosever the garbage is
    try:
        wall, cpu = np.min([asyncio.run(longest(run)) for run in range(3)], axis=0)
    finally:
        gc.enable()
    assert wall < 0.5
    assert cpu < 0.02


# --- what is told --------------------------------------------------------------------------------


def test_decisions_are_in_the_logs_of_litellm(router, engine, upstreams):
    prompt, (best, *_) = first_with(router, "maths-13b")
    logged = []

    class Log(CustomLogger):
        async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
            of_request = kwargs["standard_logging_object"]
            if "team" in (of_request["metadata"]["spend_logs_metadata"] or {}):
                logged.append(of_request)  # others are of the tests before

    chosen = made(engine, upstreams)
    litellm.logging_callback_manager.add_litellm_callback(Log())

    async def ask():
        metadata = {"own": 1, "spend_logs_metadata": {"team": "x"}}
        await chosen.acompletion(VIRTUAL, user(prompt), metadata=metadata)
        while not logged:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(ask(), 10))
    found = logged[0]["metadata"]["spend_logs_metadata"]
    assert logged[0]["model_group"] == best
    assert found["team"] == "x"
    assert found["benchrouter"] == {
        "router": "default",
        "version": engine.routers["default"].version,
        "model": best,
        "fallback": False,
        "cause": None,
        "reason": router.explain(prompt).reason,
        "deployment": best,
    }


def test_metadata_of_callers_stays_theirs(engine, upstreams):
    metadata = {"own": 1}
    chosen = made(engine, upstreams)
    assert told(chosen.completion(VIRTUAL, user("w1"), metadata=metadata))
    assert "benchrouter" not in metadata
    assert told(chosen.completion("small-3b", user("w1"), metadata=metadata)) == {}


@pytest.mark.parametrize("metadata", [None, {}, {"spend_logs_metadata": "x"}, "x"])
def test_metadata_of_callers_may_be_anything(engine, upstreams, metadata):
    chosen = made(engine, upstreams)
    request = {"model": VIRTUAL, "messages": user("w1"), "metadata": metadata}
    asyncio.run(chosen._routing.prepare(request, chosen._router))
    assert request["metadata"]["benchrouter"]["deployment"] == request["model"]


def test_headers_are_one_line_of_ascii():
    told = {"deployment": "modèle", "router": "default", "version": None, "reason": "one\r\ntwo: α"}
    assert integration._headers({"metadata": {"benchrouter": told}}) == {}  # anybody's
    told = integration._Told(told)
    assert integration._headers({"metadata": {"benchrouter": told}}) == {
        "x-benchrouter-model": "mod?le",
        "x-benchrouter-router": "default",
        "x-benchrouter-reason": "one two: ?",
    }
    assert integration._headers({"metadata": None, "litellm_metadata": {}}) == {}


def test_sources_and_policies_are_checked(engine):
    with pytest.raises(TypeError, match="an Engine, an AsyncClient or a Client, got str"):
        Routing("router")
    with pytest.raises(TypeError, match="policies must be RoutePolicy, got dict"):
        Routing(engine, policies={"cheap": {}})


def test_entry_points_of_litellm_1_110():
    info = {"id": "1", "benchrouter": "maths-13b"}
    registry = SimpleNamespace(
        all=lambda: [{"model_name": "ours", "litellm_params": {}, "model_info": info}],
        resolve=lambda name, kind: {VIRTUAL: "ours"}.get(name) if kind == "alias" else 1 / 0,
    )

    class Cooldowns:
        async def async_get_active_cooldowns(self, ids, span):
            return [(model_id, {}) for model_id in ids]

    router = SimpleNamespace(
        registry=lambda: registry,
        settings=lambda: SimpleNamespace(
            cooldown_time=7.0, fallbacks=None, fallback_access_check=None
        ),
        max_fallbacks=5,
        health=lambda: SimpleNamespace(cooldowns=Cooldowns()),
    )
    gateway = integration.Gateway(router)
    assert gateway.deployed(["maths-13b", "small-3b"]) == gateway.marked == ["ours"]
    assert (gateway.cooldown_s, gateway.fallbacks) == (7.0, [])
    assert (gateway.alias_of(VIRTUAL), gateway.alias_of("x")) == ("ours", None)
    assert gateway.cools("ours", asyncio.run(gateway.cooling()))
    assert not gateway.cools("ours", set())


# --- the page ------------------------------------------------------------------------------------


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_program_of_the_page(folder, engine, upstreams, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for variable, name in zip(("GENERAL_URL", "MATHS_URL", "SMALL_URL"), MODELS, strict=True):
        monkeypatch.setenv(variable, upstreams[name].url)
    [program] = [block for block in blocks("python") if "asyncio.run(main())" in block]
    exec(compile(program, str(PAGE), "exec"), {"__name__": "__main__"})
    model, answer = capsys.readouterr().out.splitlines()
    assert model in MODELS
    assert answer == f"I am {model}"
