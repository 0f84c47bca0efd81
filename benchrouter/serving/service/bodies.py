"""Bodies of requests: read within a limit, parsed by a schema."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from benchrouter.serving.service.errors import Refused

JSON = b"application/json"
ALL_BODIES = 16  # all bodies that are being read may hold so many times the limit of one
# Arrays and objects of a body. Text is read at 1 GB/s; 16 MB of brackets would take 7 s and 1 GB.
MAX_CONTAINERS = 100_000
SHOWN_ERRORS = 3
MANY_ERRORS = 100  # not worth the time to list them

Model = TypeVar("Model", bound=BaseModel)


class Bodies:
    """Reads bodies of requests, none longer than a limit, and all together not much longer.

    Parameters
    ----------
    max_bytes : int
        Of one body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def parse(self, request: Request, model: type[Model]) -> Model:
        """Read and check a body.

        Parameters
        ----------
        request : Request
        model : type
            A pydantic model.

        Returns
        -------
        model

        Raises
        ------
        Refused
            413, 415 and 429 before the body is read; 400 if it is no JSON; 422 if it is other JSON
            than the model's.
        """
        headers = dict(request.scope["headers"])
        # Needed, as a page of another site can send no such header here, but bodies without one.
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
        if kind.lower() != JSON:
            raise _unsupported("Content-Type", kind, JSON)
        coding = headers.get(b"content-encoding", b"identity").strip()
        if coding.lower() != b"identity":
            raise _unsupported("Content-Encoding", coding, b"none")
        body = await self._read(request, headers.get(b"content-length", b""))
        if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:  # those within texts too
            n = n_containers(body)
            if n > MAX_CONTAINERS:
                raise Refused(
                    422,
                    "too_many_values",
                    f"found {n:,} arrays and objects, expected at most {MAX_CONTAINERS:,}",
                )
        try:
            return model.model_validate_json(body)
        except ValidationError as e:
            raise _refusal_of(e) from None

    async def _read(self, request: Request, told: bytes) -> bytes:
        if told.isdigit():
            self._check(int(told))
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                self._held += len(part)
                self._check(size)
        finally:
            self._held -= size
        return b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refused(
                413,
                "body_too_large",
                f"the body has more bytes than the {self._max_bytes:,} that are read",
            )
        if self._held > ALL_BODIES * self._max_bytes:
            raise Refused(429, "overloaded", "too many large requests at once: come back later")


def n_containers(body: bytes) -> int:
    """Count the arrays and objects of JSON, in a time that its length bounds.

    Parameters
    ----------
    body : bytes
        Where it is no JSON, the count holds for what stands before the fault.

    Returns
    -------
    int
    """
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")  # each quote left begins or ends a text
    characters = np.frombuffer(plain, np.uint8)
    n_quotes = np.cumsum(characters == ord('"'), dtype=np.uint8)  # modulo 256, which keeps it odd
    opening = (characters == ord("[")) | (characters == ord("{"))
    return int(np.count_nonzero(opening & (n_quotes % 2 == 0)))


def _unsupported(header: str, found: bytes, expected: bytes) -> Refused:
    return Refused(
        415,
        "unsupported_media_type",
        f"found {header} {found[:100].decode('latin-1')!r}, expected {expected.decode()}",
    )


def _refusal_of(e: ValidationError) -> Refused:
    n = e.error_count()
    if n > MANY_ERRORS:
        return Refused(422, "invalid_request", f"found {n:,} fields that are not expected")
    errors = e.errors(include_url=False, include_context=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return Refused(400, "invalid_json", errors[0]["msg"])
    told = [
        ".".join(str(part)[:100] for part in error["loc"]) + ": " + error["msg"]
        for error in errors[:SHOWN_ERRORS]
    ]
    more = f"; and {n - SHOWN_ERRORS} more" if n > SHOWN_ERRORS else ""
    return Refused(422, "invalid_request", "; ".join(told).removeprefix(": ") + more)
