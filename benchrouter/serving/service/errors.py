"""Refusals, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from benchrouter.files.errors import BenchrouterError

RETRY_AFTER_S = 1
FAILED = "the service failed; its log says how"
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refused(BenchrouterError):
    """A request that is not answered as it asked, with the status that says so.

    Parameters
    ----------
    status : int
    code : str
        For programs, such as "body_too_large".
    message : str
        For people: what was found and what was expected.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def error(refused: Refused, headers: Mapping[str, str] | None = None) -> Response:
    """Make the response of a refusal.

    Parameters
    ----------
    refused : Refused
    headers : mapping of str to str, optional
        Beside those that its status asks for.

    Returns
    -------
    Response
    """
    said = dict(headers or {})
    if refused.status in (429, 503):
        said["Retry-After"] = str(RETRY_AFTER_S)
    if refused.status == 401:
        said["WWW-Authenticate"] = "Bearer"
    return Response(body_of(refused), refused.status, headers=said, media_type="application/json")


def body_of(refused: Refused) -> bytes:
    """JSON of a refusal: {"error": {"message", "type", "code"}}."""
    from pydantic_core import to_json

    content: dict[str, Any] = {
        "message": refused.message,
        "type": _TYPES.get(refused.status, "invalid_request_error"),
        "code": refused.code,
    }
    return to_json({"error": content})


def of_status(status: int, detail: str | None = None) -> Refused:
    """Refusal that a status says all of."""
    phrase = HTTPStatus(status).phrase
    return Refused(status, phrase.lower().replace(" ", "_"), detail or phrase)
