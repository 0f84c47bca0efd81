"""Bodies of requests, read as JSON within limits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import numpy as np
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from benchrouter.serving.service.errors import Refusal

BODY_S = 30.0  # for a client to send its body
ALL_BODIES = 16  # bodies being read may together hold this many times the limit of one
# Arrays and objects of a body. Text is read at 1 GB/s; 16 MB of brackets would take 7 s and 1 GB.
MAX_CONTAINERS = 100_000


class BodyLimit:
    """Bytes that one body, and all bodies being read, may have.

    Parameters
    ----------
    max_bytes : int
        Of one body; all together may hold `ALL_BODIES` times as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Read a body.

        Raises
        ------
        Refusal
            408 if it does not arrive in time, 413 if it is too long, 429 if all bodies being read
            are together.
        """
        told = request.headers.get("content-length", "")
        if told.isdecimal():
            self._check(int(told))
        parts: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(BODY_S):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self._held += len(part)
                    self._check(size)
        except TimeoutError:
            message = "the request was not finished in time"
            raise Refusal(408, "request_timeout", message) from None
        finally:
            self._held -= size
        return b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            message = f"the body has more bytes than the {self._max_bytes:,} that are read"
            raise Refusal(413, "body_too_large", message)
        if self._held > ALL_BODIES * self._max_bytes:
            raise Refusal(429, "overloaded", "too many large requests at once: come back later")


class JsonRequest(Request):
    """A request whose body is JSON in UTF-8; `app.state.body_limit` bounds it."""

    async def body(self) -> bytes:
        """Read the body, unless the headers say that it is something else (415)."""
        if not hasattr(self, "_body"):
            # A page of another site can send a body without a type, but none of this type.
            kind = self.headers.get("content-type", "").partition(";")[0].strip()
            if kind.lower() != "application/json":
                raise _unsupported("Content-Type", kind, "application/json")
            coding = self.headers.get("content-encoding", "identity").strip()
            if coding.lower() != "identity":
                raise _unsupported("Content-Encoding", coding, "none")
            limit: BodyLimit = self.app.state.body_limit
            self._body = await limit.read(self)
        return self._body

    async def json(self) -> Any:
        """Parse the body; 400 if it is no JSON, 422 if it has too many arrays and objects."""
        if not hasattr(self, "_json"):
            body = await self.body()
            if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:  # those within texts too
                n = n_containers(body)
                if n > MAX_CONTAINERS:
                    message = f"found {n:,} arrays and objects, expected at most {MAX_CONTAINERS:,}"
                    raise Refusal(422, "too_many_values", message)
            try:
                self._json = from_json(body)
            except ValueError as e:
                raise Refusal(400, "invalid_json", f"Invalid JSON: {e}") from None
        return self._json


class JsonRoute(APIRoute):
    """A route that takes a `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Parse the body before FastAPI does, which takes an empty one for none."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            await request.json()
            return await handle(request)

        return parse_and_handle


def n_containers(body: bytes) -> int:
    """Count the arrays and objects of JSON in time linear in its length.

    Parameters
    ----------
    body : bytes
        If it is invalid JSON, the count holds up to the first error.
    """
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")  # each quote left begins or ends a text
    characters = np.frombuffer(plain, np.uint8)
    n_quotes = np.cumsum(characters == ord('"'), dtype=np.uint8)  # modulo 256, which keeps it odd
    opening = (characters == ord("[")) | (characters == ord("{"))
    return int(np.count_nonzero(opening & (n_quotes % 2 == 0)))


def _unsupported(header: str, found: str, expected: str) -> Refusal:
    message = f"found {header} {found[:100]!r}, expected {expected}"
    return Refusal(415, "unsupported_media_type", message)
