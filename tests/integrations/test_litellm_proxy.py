"""LiteLLM's proxy with the callbacks of docs/litellm.md, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import MODELS, write_router
from test_litellm import PAGE, VIRTUAL, blocks, wait_until
from tiny_encoder import prompts_of
from upstream import Upstream

from benchrouter import Router
from benchrouter.serving import RoutePolicy

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("litellm_proxy_extras", reason="the proxy, litellm[proxy], is not here")

pytestmark = pytest.mark.slow
ROOT = PAGE.parents[1]
KEY = "sk-of-the-tests-0123456789abcdef"
GROUPS = {"general-70b": "our-general-model", "maths-13b": "maths-13b", "small-3b": "small-3b"}
ALIAS = GROUPS["general-70b"]
KEYS = {  # what they may use by name
    "sk-virtual": [VIRTUAL],
    "sk-small": [VIRTUAL, "small-3b", "embeddings"],
    "sk-alias": [ALIAS],
    "sk-limited": [VIRTUAL],
    "sk-embeddings": ["embeddings"],
}
AUTH = f"""
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

async def check(request, api_key):
    if api_key == {KEY!r}:
        return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.PROXY_ADMIN)
    limits = {{"model_rpm_limit": dict.fromkeys({list(GROUPS.values())!r}, 1)}}
    metadata = limits if api_key == "sk-limited" else {{}}
    return UserAPIKeyAuth(api_key=api_key, models={KEYS!r}[api_key], metadata=metadata)
"""
WITH_KEYS = """
general_settings:
  custom_auth: keys.check
  custom_auth_run_common_checks: true
litellm_settings:
  enable_post_custom_auth_checks: true
"""
RUN = "import litellm; litellm.run_server()"  # as the command litellm does
SERVE = [sys.executable, "-m", "benchrouter", "serve"]
START_S = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    write_router(folder)
    [config] = blocks("yaml")
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture(scope="module")
def router(folder):
    return Router.load(folder / "router")


@pytest.fixture(scope="module")
def upstreams():
    found = {name: Upstream() for name in MODELS}
    yield found
    for upstream in found.values():
        upstream.kill()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Proxy:
    """LiteLLM's proxy in a process of its own."""

    def __init__(self, folder, callback, upstreams, **environment):
        (folder / "benchrouter_callback.py").write_text(callback)
        urls = ("GENERAL_URL", "MATHS_URL", "SMALL_URL")
        environment |= {u: upstreams[m].url for u, m in zip(urls, MODELS, strict=True)}
        environment |= {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "proxy.log"
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN, "--config=config.yaml", f"--port={port}"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=log,
                stderr=log,
            )
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)
        self.headers = {"Authorization": f"Bearer {KEY}"}
        try:
            wait_until(self._answers, START_S)
        except AssertionError as e:
            self.stop()
            raise AssertionError(self._log.read_text()[-2000:]) from e

    def _answers(self):
        assert self._process.poll() is None, "it ended"
        time.sleep(0.2)
        try:
            return httpx.get(f"{self.url}/health/liveliness").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log(self):
        return self._log.read_text()

    @property
    def libraries(self):
        return Path(f"/proc/{self._process.pid}/maps").read_text()

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, prompt, model=VIRTUAL, key=KEY, **options):
        """Ask for a chat completion; its text, and what is told in headers."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        completions = self.client.with_options(api_key=key).chat.completions.with_raw_response
        raw = completions.create(model=model, messages=messages, **options)
        own = {k: v for k, v in raw.headers.items() if k.startswith("x-benchrouter")}
        return raw.parse().choices[0].message.content.removeprefix("I am "), own

    def ask_all(self, prompts, at_once=50):
        """Ask at once, over a bounded number of connections."""

        async def all_of():
            # Connections end before the proxy ends them, which would lose a request now and then.
            limits = httpx.Limits(max_connections=at_once, keepalive_expiry=2)
            options = {"http_client": httpx.AsyncClient(limits=limits, timeout=120)}
            options |= {"base_url": f"{self.url}/v1", "api_key": KEY, "max_retries": 0}
            async with openai.AsyncOpenAI(**options) as client:

                async def one(prompt):
                    messages = [{"role": "user", "content": prompt}]
                    completion = await client.chat.completions.create(
                        model=VIRTUAL, messages=messages
                    )
                    return completion.choices[0].message.content.removeprefix("I am ")

                return await asyncio.gather(*map(one, prompts))

        return asyncio.run(all_of())

    def post(self, path, **content):
        return httpx.post(f"{self.url}{path}", json=content, headers=self.headers, timeout=60)


def ask_with_a_loss(proxy, router, upstreams, seed):
    """Ask 1,000 prompts at once, kill the most asked model half-way, and check all answers."""
    prompts = prompts_of([4, 9, 6, 3] * 250, seed=seed)
    ranking = router.rank(prompts)
    best, second = ([MODELS[m] for m in ranking.order[:, rank]] for rank in (0, 1))
    assert best == router.route(prompts).names()
    dead = max(MODELS, key=best[500:].count)
    for upstream in upstreams.values():
        upstream.requests.clear()

    async def half_way():
        answers = asyncio.create_task(asyncio.to_thread(proxy.ask_all, prompts, 1000))
        while sum(len(upstream.requests) for upstream in upstreams.values()) < 500:
            await asyncio.sleep(0.005)
        upstreams[dead].kill()
        return await answers

    try:
        answers = asyncio.run(half_way())
    finally:
        upstreams[dead].start()
    n_moved = 0
    for answer, first, next_best in zip(answers, best, second, strict=True):
        assert answer == first or (first == dead and answer == next_best)
        n_moved += answer != first
    assert 0 < n_moved < best.count(dead)
    wait_until(lambda: proxy.ask(prompts[best.index(dead)])[0] == dead, 30)


# --- in the proxy's process ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(folder, upstreams):
    [callback] = [block for block in blocks("python") if "policies=" in block]
    plain = 'Engine("router")'
    assert plain in callback
    patient = callback.replace(plain, 'Engine("router", deadline_s=30)')
    (folder / "keys.py").write_text(AUTH)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("litellm_settings:\n", WITH_KEYS.lstrip()))
    found = Proxy(folder, patient, upstreams)
    (folder / "config.yaml").write_text(config)
    yield found
    found.stop()


def test_a_thousand_requests_and_an_upstream_that_is_killed(proxy, router, upstreams):
    ask_with_a_loss(proxy, router, upstreams, seed=4)


def test_what_is_told(proxy, router):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=5)
    for prompt, model in zip(prompts, router.route(prompts).names(), strict=True):
        answer, told = proxy.ask(prompt)
        assert answer == model
        assert told["x-benchrouter-model"] == GROUPS[model]
        assert told["x-benchrouter-router"] == "default"
        assert len(told["x-benchrouter-version"]) == 12
        assert told["x-benchrouter-reason"]


def test_a_policy_and_a_name_that_nobody_knows(proxy, router):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=6)
    cheap = router.rank(prompts, policy=RoutePolicy(within=0.05)).decisions.names()
    assert cheap != router.route(prompts).names()
    assert [proxy.ask(prompt, f"{VIRTUAL}:cheap")[0] for prompt in prompts] == cheap
    with pytest.raises(openai.BadRequestError, match="benchrouter/none"):
        proxy.ask("w1", "benchrouter/none")


def test_messages_of_any_shape(proxy, router):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    prompt = prompts_of([5], seed=7)[0]
    model = router.route([prompt]).names()[0]
    parts = [{"role": "user", "content": [{"type": "text", "text": prompt}, picture]}]
    assert proxy.ask(parts)[0] == model
    function = {"name": "add", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    called = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turn = [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "w7 w8 w9"},
    ]
    assert proxy.ask(turn, tools=tools)[0] == model
    long = (prompt + " ") * (1_000_000 // len(prompt))
    assert proxy.ask(long)[0] == router.route([long[:200_000]]).names()[0]
    answer, told = proxy.ask([{"role": "user", "content": [picture]}])
    assert answer == router.fallback
    assert "no text" in told["x-benchrouter-reason"]


def test_streams(proxy, router):
    prompt = prompts_of([5], seed=7)[0]
    messages = [{"role": "user", "content": prompt}]
    completions = proxy.client.chat.completions.with_raw_response
    raw = completions.create(model=VIRTUAL, messages=messages, stream=True)
    model = router.route([prompt]).names()[0]
    assert raw.headers["x-benchrouter-model"] == GROUPS[model]
    pieces = [c.choices[0].delta.content or "" for c in raw.parse() if c.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == f"I am {model}"


def test_other_endpoints(proxy, router):
    prompt = prompts_of([5], seed=7)[0]
    model = router.route([prompt]).names()[0]
    messages = [{"role": "user", "content": prompt}]
    answer = proxy.post("/v1/messages", model=VIRTUAL, max_tokens=9, messages=messages)
    assert answer.json()["content"][0]["text"] == f"I am {model}"
    assert answer.headers["x-benchrouter-model"] == GROUPS[model]
    for path, argument in (("/v1/completions", "prompt"), ("/v1/responses", "input")):
        answer = proxy.post(path, **{"model": VIRTUAL, argument: prompt})
        assert f"I am {model}" in answer.text
        assert answer.headers["x-benchrouter-model"] == GROUPS[model]


def test_other_models_are_not_touched(proxy):
    assert proxy.ask("w1 w2", "small-3b") == ("small-3b", {})
    answer = proxy.post("/v1/embeddings", model="small-3b", input="w1")
    assert answer.json()["data"][0]["embedding"] == [0.6, 0.8]
    assert "x-benchrouter-model" not in answer.headers


def test_a_response_is_continued_by_its_model(proxy, router):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=5)
    models = router.route(prompts).names()
    first, other = 0, next(i for i, model in enumerate(models) if model != models[0])
    response = proxy.post("/v1/responses", model=VIRTUAL, input=prompts[first]).json()
    options = {"input": prompts[other], "previous_response_id": response["id"]}
    answer = proxy.post("/v1/responses", model=VIRTUAL, **options)
    assert answer.json()["output"][0]["content"][0]["text"] == f"I am {models[first]}"
    assert answer.headers["x-benchrouter-model"] == GROUPS[models[first]]
    options["previous_response_id"] = "resp_of_nobody"
    answer = proxy.post("/v1/responses", model=VIRTUAL, **options)
    assert answer.headers["x-benchrouter-model"] == GROUPS[models[other]]


def test_a_model_that_failed_is_taken_again_whatever_endpoint_it_answers(proxy, router, upstreams):
    prompt = prompts_of([5], seed=7)[0]
    model = router.route([prompt]).names()[0]
    messages = [{"role": "user", "content": prompt}]
    requests = {
        "/v1/messages": {"max_tokens": 9, "messages": messages},
        "/v1/responses": {"input": prompt},
        "/v1/completions": {"prompt": prompt},
        "/v1/chat/completions": {"messages": messages},
    }
    for path, content in requests.items():

        def chosen(path=path, content=content):
            answer = proxy.post(path, model=VIRTUAL, **content)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-benchrouter-model"]

        upstreams[model].status = 500
        try:
            assert chosen() == GROUPS[model]  # and another answers
            assert chosen() != GROUPS[model]
        finally:
            upstreams[model].status = 200
        wait_until(lambda: chosen() == GROUPS[model], 20)
        time.sleep(0.5)  # until LiteLLM has logged that it answered
        assert chosen() == GROUPS[model], path


def test_keys_get_only_models_that_they_may_use(proxy, router):
    prompts = prompts_of([4, 9, 6, 3] * 5, seed=5)
    models = router.route(prompts).names()
    assert set(models) == set(MODELS)
    assert [proxy.ask(prompt, key="sk-virtual")[0] for prompt in prompts] == models
    for key, model in (("sk-small", "small-3b"), ("sk-alias", "general-70b")):
        for prompt, best in zip(prompts, models, strict=True):
            answer, told = proxy.ask(prompt, key=key)
            assert answer == model
            refused = f"this key may not use {GROUPS[best]}" in told["x-benchrouter-reason"]
            assert refused == (best != model)
    with pytest.raises(openai.PermissionDeniedError, match="benchrouter/default"):
        proxy.ask(prompts[0], key="sk-embeddings")


def test_a_limit_of_a_key_is_not_a_failure_of_the_model(proxy, router):
    prompt = prompts_of([5], seed=7)[0]
    model = router.route([prompt]).names()[0]
    assert proxy.ask(prompt, key="sk-limited")[0] == model
    with pytest.raises(openai.RateLimitError, match=f"model_per_key.*{GROUPS[model]}"):
        proxy.ask(prompt, key="sk-limited")
    assert proxy.ask(prompt)[1]["x-benchrouter-model"] == GROUPS[model]


def test_the_virtual_model_is_listed(proxy):
    assert VIRTUAL in [model.id for model in proxy.client.models.list()]


# --- through the service -------------------------------------------------------------------------


class Service:
    """`benchrouter serve` in a process of its own."""

    def __init__(self, folder, port=0):
        self._process = subprocess.Popen(
            [*SERVE, "router", "--deadline-ms", "30000", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = self._process.stdout.readline().removeprefix("listening on ").strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def test_a_service_that_is_asked_a_lot_goes_down_and_comes_back(folder, router, upstreams):
    [callback] = [block for block in blocks("python") if "BENCHROUTER_URL" in block]
    service = Service(folder)
    proxy = None
    try:
        patient = callback.replace("timeout_s=1.0", "timeout_s=30.0")
        assert patient != callback
        proxy = Proxy(folder, patient, upstreams, BENCHROUTER_URL=service.url)
        assert "libtorch" not in proxy.libraries
        prompts = prompts_of([4, 9, 6, 3] * 10, seed=9)
        expected = router.route(prompts).names()
        assert proxy.ask_all(prompts) == expected
        ask_with_a_loss(proxy, router, upstreams, seed=10)
        service.kill()
        others = [name for name in expected if GROUPS[name] != ALIAS]
        assert others
        assert set(proxy.ask_all(prompts)) == {"general-70b"}
        assert "benchrouter could not be asked: Unreachable" in proxy.log
        service = Service(folder, service.port)
        wait_until(lambda: proxy.ask(prompts[expected.index(others[0])])[0] == others[0], 10)
        assert proxy.ask_all(prompts) == expected
    finally:
        service.kill()
        if proxy is not None:
            proxy.stop()
