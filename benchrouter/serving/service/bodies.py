"""Bodies of requests: read within a limit, parsed by a schema."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from benchrouter.serving.service.errors import Refused

JSON = b"application/json"
ALL_BODIES = 16  # all bodies that are being read may hold so many times the limit of one
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
        kind = headers.get(b"content-type", JSON).partition(b";")[0].strip()
        if kind.lower() != JSON:
            found = kind[:100].decode("latin-1")
            raise Refused(
                415,
                "unsupported_media_type",
                f"found Content-Type {found!r}, expected application/json",
            )
        body = await self._read(request, headers.get(b"content-length", b""))
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
