"""Refusals, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from benchrouter.files.errors import BenchrouterError

RETRY_AFTER_S = 1
SHOWN_ERRORS = 3
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refusal(BenchrouterError, HTTPException):
    """A request that is not answered as asked.

    Parameters
    ----------
    status : int
        429 and 503 add Retry-After, 401 adds WWW-Authenticate.
    code : str
        For programs, such as "body_too_large".
    message : str
        For people: what was found and what was expected.
    headers : mapping of str to str, optional
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        headers = dict(headers or {})
        if status in (429, 503):
            headers["Retry-After"] = str(RETRY_AFTER_S)
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code = code

    def response(self) -> JSONResponse:
        """Make the response."""
        kind = _TYPES.get(self.status_code, "invalid_request_error")
        error = {"message": self.detail, "type": kind, "code": self.code}
        return JSONResponse({"error": error}, self.status_code, self.headers)


def failed() -> Refusal:
    """Answer to a request on which the service itself failed."""
    return Refusal(500, "internal_server_error", "the service failed; its log says how")


def add_handlers(app: FastAPI) -> None:
    """Answer FastAPI's own refusals in the same shape."""

    @app.exception_handler(StarletteHTTPException)
    async def on_http_exception(request: Request, e: StarletteHTTPException) -> JSONResponse:
        if not isinstance(e, Refusal):
            phrase = HTTPStatus(e.status_code).phrase
            e = Refusal(e.status_code, phrase.lower().replace(" ", "_"), phrase, e.headers)
        return e.response()

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, e: RequestValidationError) -> JSONResponse:
        errors = e.errors()
        told = []
        for error in errors[:SHOWN_ERRORS]:
            where = ".".join(str(part)[:100] for part in error["loc"] if part != "body")
            told.append(f"{where}: {error['msg']}" if where else error["msg"])
        n_more = len(errors) - SHOWN_ERRORS
        more = f"; and {n_more} more" if n_more > 0 else ""
        return Refusal(422, "invalid_request", "; ".join(told) + more).response()
