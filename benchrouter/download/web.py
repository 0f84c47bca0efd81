"""Requests over HTTPS: what is tried again, after how long, and what a refusal means."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 900.0  # seconds that a server may ask for
CHUNK = 1 << 20


class Dropped(Exception):
    """A request that failed but may succeed when it is made again, after `wait` seconds if known.

    Attributes
    ----------
    wait : float or None
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class OutOfRange(Exception):
    """The server has no bytes where the range begins."""


class Refused(OSError):
    """A request that fails however often it is made; the message says what to do."""


class Stopped(Exception):
    """The run is being ended."""


@dataclass
class Web:
    """How servers are spoken to. Proxies are those of the environment, as urllib reads it.

    Attributes
    ----------
    hint : str
        What to look at when a server refuses something.
    tokens : mapping of str to str
        Of hosts; sent to no other host, whatever redirects say.
    tell : callable
        Takes a line for people.
    timeout : float
        Seconds without a byte after which a connection counts as dropped.
    attempts : int
        Failures in a row after which a request is given up.
    stop : threading.Event
        Ends waiting and reading, in all threads.
    sleep, now : callable
        The clock, for tests.
    """

    hint: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda line: None
    timeout: float = 30.0
    attempts: int = 6
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], object] | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._opener = build_opener(_Redirects)
        self._hint = f" ({self.hint})" if self.hint else ""

    def open(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """Begin one request.

        Raises
        ------
        Dropped
            If it may be made again.
        OutOfRange
            If the range asked for lies behind the end.
        Refused
            If it need not be made again.
        """
        self.check()
        request = Request(url, headers={"User-Agent": "benchrouter", **headers})
        token = self.tokens.get(urlsplit(url).netloc)
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            return self._opener.open(request, timeout=self.timeout)
        except HTTPError as e:
            e.close()
            raise self._refusal(url, e) from None
        except Refused:
            raise
        except (OSError, HTTPException) as e:
            reason = e.reason if isinstance(e, URLError) else e
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise Refused(
                    f"{url}: its certificate is not trusted ({reason.verify_message}); where a "
                    "proxy has certificates of its own, SSL_CERT_FILE must name them"
                ) from e
            if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
                raise Refused(
                    f"{url}: no such host is known here; behind a proxy, set HTTPS_PROXY"
                    f"{self._hint}"
                ) from e
            raise Dropped(_in_words(reason)) from e

    def read(self, response: HTTPResponse) -> bytes:
        """Next bytes of an answer, none at its end.

        Raises
        ------
        Dropped
            If the connection breaks or stalls.
        """
        try:
            block = response.read1(CHUNK)
        except (OSError, HTTPException) as e:
            raise Dropped(_in_words(e)) from e
        self.check()  # what was read before the stop is not written after it
        return block

    def json(self, url: str) -> Any:
        """Fetch a JSON document.

        Raises
        ------
        Refused
            If the server refuses it, or fails too often.
        ValueError
            If it is no JSON.
        """
        failures = 0
        while True:
            try:
                with self.open(url, {"Accept": "application/json"}) as response:
                    text = b"".join(iter(lambda: self.read(response), b""))
                    if response.length:  # bytes that were promised and did not come
                        raise Dropped(f"the connection ended {response.length:,} bytes early")
                break
            except Dropped as e:
                failures += 1
                self.pause(url, e, failures)
        try:
            return json.loads(text)
        except ValueError as e:
            raise ValueError(f"{url}: expected JSON, found {text[:60]!r}: {e}") from e

    def pause(self, url: str, error: Dropped, failures: int) -> None:
        """Wait before the next attempt.

        Parameters
        ----------
        url : str
        error : Dropped
            Why the last attempt failed.
        failures : int
            In a row, at least 1.

        Raises
        ------
        Refused
            If it is one failure too many, or the server asks for too long a wait.
        """
        if failures >= self.attempts:
            raise Refused(
                f"{url}: given up after {failures} failures in a row, the last one: {error}; run "
                "the command again to go on with what has been fetched"
            )
        wait = min(2.0 ** (failures - 1), LONGEST_BACKOFF) if error.wait is None else error.wait
        if wait > LONGEST_WAIT:
            raise Refused(
                f"{url}: {error}, and the server asks to wait {wait:,.0f} s; run the command again "
                "then to go on with what has been fetched"
            )
        if wait >= 1:
            self.tell(f"note: {url}: {error}; next attempt in {wait:.0f} s")
        (self.sleep or self.stop.wait)(wait)

    def check(self) -> None:
        """Raise `Stopped` if the run is being ended."""
        if self.stop.is_set():
            raise Stopped

    def _refusal(self, url: str, e: HTTPError) -> Exception:
        what = f"{e.code} {e.reason}"
        if e.code in RETRIED:
            return Dropped(what, _seconds(e.headers.get("Retry-After"), self.now()))
        if e.code == 416:
            return OutOfRange()
        if e.code in (401, 403):
            return Refused(
                f"{url}: {what}: the server does not give it to you; if it asks for an account or "
                f"for consent, set HF_TOKEN, and see whether a proxy answers in its place"
                f"{self._hint}"
            )
        if e.code in (404, 410):
            return Refused(
                f"{url}: {what}: nothing is there; it was moved, or the name is wrong{self._hint}"
            )
        return Refused(f"{url}: {what}{self._hint}")


class _Redirects(HTTPRedirectHandler):
    """Redirects that keep a token on its host and never leave HTTPS."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        # Python 3.10 does not know 308, which for GET is 307
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is None:
            return None
        if req.type == "https" and new.type != "https":
            raise Refused(f"{req.full_url}: redirects to {newurl}, expected an https address")
        token = req.unredirected_hdrs.get("Authorization")
        if token and new.host == req.host:
            new.add_unredirected_header("Authorization", token)
        return new

    http_error_308 = HTTPRedirectHandler.http_error_302


def _seconds(text: str | None, now: float) -> float | None:
    """Retry-After, which is a number of seconds or a date; None if it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return None


def _in_words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no byte came in time"
    return str(error) or type(error).__name__
