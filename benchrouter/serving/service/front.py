"""What every request passes first: the key, the count, the log, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchrouter.serving.service import logs
from benchrouter.serving.service.errors import FAILED, Refused, error, of_status
from benchrouter.serving.service.hosts import are_local
from benchrouter.serving.service.keys import Keys
from benchrouter.serving.service.metrics import Metrics

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})  # without a key
KEYED = frozenset({"/v1/route", "/v1/choose", "/v1/explain", "/v1/models", "/metrics"})
PROBES = frozenset({"/healthz", "/readyz"})  # not logged while all is well
SHOWN_PATH = 200  # characters in the log
NOTE = "benchrouter.note"  # of the scope: what an endpoint has to say to the log
LINGER_S = 1.0
CLIENT_GONE = 499  # in log and metrics only: nobody was there to be answered


class Front:
    """The whole service, as an ASGI application around another.

    Whatever is not known to be open needs a key. A body that was not read to its end, because the
    answer was clear before, ends the connection.

    Parameters
    ----------
    app : ASGI application
    direct : mapping of (str, str) to callable
        By method and path what answers without the application: its routing and dependencies would
        take longer than the answer.
    keys : Keys
    metrics : Metrics
    log_requests : bool
    only_local_names : bool
        Whether to refuse a Host of the public internet.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        direct: Mapping[tuple[str, str], Callable[[Request], Awaitable[Response]]],
        keys: Keys,
        metrics: Metrics,
        log_requests: bool,
        only_local_names: bool = False,
    ) -> None:
        self._app = app
        self._direct = direct
        self._keys = keys
        self._metrics = metrics
        self._log_requests = log_requests
        self._only_local_names = only_local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        note: dict[str, Any] = {}
        scope[NOTE] = note
        exchange = _Exchange(scope, receive, send)
        try:
            if self._only_local_names and not are_local(scope["headers"]):
                raise Refused(
                    403,
                    "host_not_local",
                    "without a key, Host must be an address or a name of this network: give "
                    "--api-key-file, or --no-api-key where something before this service asks",
                )
            if path not in OPEN and not self._keys.admit(scope["headers"]):
                raise Refused(401, "invalid_api_key", "expected Authorization: Bearer KEY")
            answer = self._direct.get((scope["method"], path))
            if answer is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                response = await answer(Request(scope, exchange.receive, exchange.send))
                await response(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or CLIENT_GONE
        except asyncio.CancelledError:
            await exchange.fail(Refused(503, "shutting_down", "the service is shutting down"))
            raise
        except Refused as refused:
            await exchange.fail(refused)
        except Exception as e:
            logs.REQUESTS.exception("%s %s failed: %s", scope["method"], path, type(e).__name__)
            await exchange.fail(of_status(500, FAILED))
        finally:
            seconds = time.perf_counter() - started
            known = path in OPEN or path in KEYED
            self._metrics.requested(path if known else "other", exchange.status, seconds)
            if self._log_requests and not (path in PROBES and exchange.status == 200):
                fields = {
                    "method": scope["method"],
                    "path": path[:SHOWN_PATH],
                    "status": exchange.status,
                    "duration_ms": round(1000 * seconds, 3),
                    "client": scope["client"][0] if scope.get("client") else None,
                    **note,
                }
                logs.log_request(fields)


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
            # Who still sends does not read the answer if the connection is reset meanwhile.
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        async def read() -> None:
            while self._unread:
                await self.receive()

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), LINGER_S)

    async def fail(self, refused: Refused) -> None:
        """Answer with a refusal, if no answer has begun."""
        if self.status == 0:
            await error(refused)(self._scope, self.receive, self.send)
