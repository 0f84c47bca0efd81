"""Middleware that counts and logs every request, and answers it whatever happens."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchrouter.serving.service import logs
from benchrouter.serving.service.errors import Refusal, failed
from benchrouter.serving.service.keys import OPEN, path_of
from benchrouter.serving.service.metrics import Metrics

COUNTED = OPEN | {"/v1/route", "/v1/choose", "/v1/explain", "/v1/models", "/metrics"}
PROBES = frozenset({"/healthz", "/readyz"})  # not logged while all is well
SHOWN_PATH = 200  # characters in the log
LINGER_S = 1.0
CLIENT_GONE = 499  # in log and metrics only: the client left before the answer


class Observed:
    """The middleware. Endpoints add fields to the log in `request.state.note`.

    If an answer is sent before the body was read to its end, the connection is closed after it.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    log_requests : bool
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope.setdefault("state", {})["note"] = {}
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or CLIENT_GONE
        except asyncio.CancelledError:
            await exchange.fail(Refusal(503, "shutting_down", "the service is shutting down"))
            raise
        except Exception as e:
            name = type(e).__name__
            logs.REQUESTS.exception("%s %s failed: %s", scope["method"], scope["path"], name)
            await exchange.fail(failed())
        finally:
            self._tell(scope, exchange.status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        path = path_of(scope)
        self._metrics.requested(path if path in COUNTED else "other", status, seconds)
        if self._log_requests and not (path in PROBES and status == 200):
            logs.log_request(
                {
                    "method": scope["method"],
                    "path": path[:SHOWN_PATH],
                    "status": status,
                    "duration_ms": round(1000 * seconds, 3),
                    "client": scope["client"][0] if scope.get("client") else None,
                    **scope["state"]["note"],
                }
            )


class _Exchange:
    """One request and its answer: how far both have come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        names = {name for name, _ in scope["headers"]}
        self._unread = b"content-length" in names or b"transfer-encoding" in names
        self._closing = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body"):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._unread:
                self._closing = True
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif self._closing and not message.get("more_body"):
            # A client that is still sending loses the answer if the connection is reset meanwhile.
            await self._send({**message, "more_body": True})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._read_on(), LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _read_on(self) -> None:
        while self._unread:
            await self.receive()

    async def fail(self, refused: Refusal) -> None:
        """Answer with a refusal, unless an answer has begun."""
        if self.status == 0:
            await refused.response()(self._scope, self.receive, self.send)
