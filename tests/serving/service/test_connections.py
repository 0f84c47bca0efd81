"""Connections to the service that misbehave: slow, idle, endless, no HTTP at all."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress

import pytest

for package in ("fastapi", "httpx", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

from fastapi import APIRouter, FastAPI, Response  # noqa: E402
from served import answer_of, post, running  # noqa: E402

from benchrouter.serving.service import bodies, errors, metrics, process  # noqa: E402
from benchrouter.serving.service.keys import Admission  # noqa: E402
from benchrouter.serving.service.observed import Observed  # noqa: E402
from benchrouter.serving.service.requests import RouteRequest  # noqa: E402

HEAD = b"POST /v1/route HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
REQUEST = post("/v1/route", b'{"prompt": "w1"}')


@pytest.fixture
def app():
    """A service that answers with the length of the prompt; with a large answer to 'large'."""
    router = APIRouter(route_class=bodies.JsonRoute)

    @router.post("/v1/route")
    async def route(asked: RouteRequest) -> Response:
        if asked.prompt == "slow":
            await asyncio.sleep(1.0)
        size = 20_000_000 if asked.prompt == "large" else len(asked.prompt)
        return Response(b"x" * size)

    app = FastAPI()
    app.state.body_limit = bodies.BodyLimit(1_000_000)
    app.include_router(router)
    app.add_middleware(Admission, keys=[], only_local_names=False)
    app.add_middleware(Observed, metrics=metrics.Metrics(), log_requests=False)
    errors.add_handlers(app)
    return app


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_closed(connection, seconds=5.0):
    """Whether the other end closes the connection in time, without another word."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def said(connection):
    """Everything until the other end closes the connection."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def test_requests_in_a_row_and_at_once(app):
    with running(app) as port, connect(port) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert answer_of(connection)[::2] == (200, b"xx")
        connection.sendall(REQUEST * 2 + post("/v1/route", b'{"prompt": "w"}'))
        file = connection.makefile("rb")
        text = b""
        while text.count(b"HTTP/1.1 200 OK") < 3 or not text.endswith(b"\r\n\r\nx"):
            text += file.read1(4096)
        connection.sendall(REQUEST)
        assert answer_of(connection)[0] == 200


def test_a_request_in_drops_is_answered(app):
    with running(app) as port, connect(port) as connection:
        for at in range(0, len(REQUEST), 7):
            connection.sendall(REQUEST[at : at + 7])
            time.sleep(0.001)
        assert answer_of(connection)[::2] == (200, b"xx")


UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQCAAAA",
)


@pytest.mark.parametrize("apart", [False, True])
def test_an_offer_of_http2_does_not_cost_the_body(app, apart):
    """As Java's HttpClient offers it with its first request; the answer is HTTP/1.1."""
    request = post("/v1/route", b'{"prompt": "w1"}', *UPGRADE)
    with running(app) as port, connect(port) as connection:
        for _ in range(2):
            if apart:
                head, end, body = request.partition(b"\r\n\r\n")
                connection.sendall(head + end)
                time.sleep(0.05)
                connection.sendall(body)
            else:
                connection.sendall(request)
            assert answer_of(connection)[::2] == (200, b"xx")
        connection.sendall(REQUEST)
        assert answer_of(connection)[::2] == (200, b"xx")


@pytest.mark.parametrize("first", [True, False])
def test_a_client_that_does_not_finish_its_body_is_told_in_time(app, first, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    with running(app) as port, connect(port) as connection:
        if not first:
            connection.sendall(REQUEST)
            assert answer_of(connection)[0] == 200
        connection.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
        status, headers, body = answer_of(connection)
        assert status == 408 and headers["connection"] == "close"
        assert json.loads(body)["error"]["code"] == "request_timeout"
        assert is_closed(connection)


def test_drops_do_not_buy_time(app, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.5)
    with running(app) as port, connect(port) as connection:
        started = time.monotonic()
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        with pytest.raises((ConnectionError, TimeoutError)):
            while time.monotonic() < started + 10:
                connection.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() < started + 5


def test_work_is_given_its_time(app, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    with running(app) as port, connect(port) as connection:
        connection.sendall(post("/v1/route", b'{"prompt": "slow"}'))
        assert answer_of(connection)[0] == 200
        time.sleep(1.5)  # between requests there is more patience
        connection.sendall(REQUEST)
        assert answer_of(connection)[0] == 200


def test_connections_beyond_the_limit_are_asked_to_come_back(app):
    with running(app, max_connections=20) as port:
        idle = [connect(port) for _ in range(30)]
        time.sleep(0.2)
        with connect(port) as connection:
            connection.sendall(REQUEST)
            assert answer_of(connection)[0] == 503
        for each in idle:
            each.close()
        time.sleep(0.2)
        with connect(port) as connection:
            connection.sendall(REQUEST)
            assert answer_of(connection)[0] == 200


def test_requests_at_work_are_finished_whoever_comes(app):
    with running(app, max_connections=31) as port:
        busy = [connect(port) for _ in range(30)]
        for each in busy:
            each.sendall(post("/v1/route", b'{"prompt": "slow"}'))
        time.sleep(0.3)
        idle = [connect(port) for _ in range(30)]
        assert [answer_of(each)[0] for each in busy] == [200] * 30
        for each in busy + idle:
            each.close()


@pytest.mark.parametrize(
    "begun",
    [HEAD + b"X: " + b"x" * 300_000, HEAD + b"X: y\r\n" * 100_000, b"GET /" + b"x" * 300_000],
    ids=["one", "many", "path"],
)
def test_endless_headers_are_refused(app, begun):
    with running(app) as port, connect(port) as connection:
        with suppress(ConnectionError):
            connection.sendall(begun)
        assert said(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"hello\r\n\r\n",
        b"GET /\xff\x00 HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
    ids=["tls", "text", "path", "negative", "two lengths", "smuggled", "chunk"],
)
def test_what_is_no_http_is_refused(app, text):
    with running(app) as port:
        with connect(port) as connection:
            connection.sendall(text)
            assert said(connection).startswith(b"HTTP/1.1 400 ")
        with connect(port) as connection:
            connection.sendall(REQUEST)
            assert answer_of(connection)[0] == 200


@pytest.mark.parametrize(
    "path", ["/v1/../v1/route", "/./v1/route", "//here/v1/route", "*", "route"]
)
def test_paths_are_taken_as_they_come(app, path):
    with running(app) as port, connect(port) as connection:
        connection.sendall(post(path, b"{}"))
        assert answer_of(connection)[0] in (400, 404)


def chunked(total, size=65_536):
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in range(total // size):
        yield b"%x\r\n" % size + b" " * size + b"\r\n"


def whole(total, size=65_536):
    yield HEAD + b"Content-Length: %d\r\n\r\n" % total
    for _ in range(total // size):
        yield b" " * size


@pytest.mark.parametrize("parts", [chunked, whole])
def test_a_body_that_is_too_long_is_refused_before_it_is_read(app, parts):
    with running(app) as port, connect(port) as connection:
        sent = []

        def send():
            try:
                for part in parts(500_000_000):
                    connection.sendall(part)
                    sent.append(len(part))
            except OSError:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        status, headers, body = answer_of(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"]["code"] == "body_too_large"
        connection.close()
        sender.join(20)
        assert sum(sent) < 400_000_000


def test_a_client_that_asks_first_sends_nothing_in_vain(app):
    with running(app) as port, connect(port) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n")
        assert answer_of(connection)[0] == 413


def test_an_end_waits_for_work_and_not_for_clients_that_do_not_finish(app, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 3.0)
    with running(app) as port:
        begun = [connect(port) for _ in range(3)]
        begun[1].sendall(HEAD)
        begun[2].sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
        busy = connect(port)
        busy.sendall(post("/v1/route", b'{"prompt": "slow"}'))
        time.sleep(0.2)
        started = time.monotonic()
        answers = []
        reading = threading.Thread(target=lambda: answers.append(answer_of(busy)[0]))
        reading.start()
    assert time.monotonic() - started < process.DRAIN_S / 2
    reading.join(5)
    assert answers == [200] and is_closed(busy)
    for each in [*begun, busy]:
        each.close()
