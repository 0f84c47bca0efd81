"""Requests over HTTPS: what is tried again, after how long, and what a refusal means."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchrouter.files.errors import BenchrouterError

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 900.0  # seconds that a server may ask for
WITHHELD = (
    ": the server does not give it to you; if it asks for an account or for consent, set HF_TOKEN, "
    "and see whether a proxy answers in its place"
)
GONE = ": nothing is there; it was moved, or the name is wrong"
ANOTHER = "found a web page, expected a file; see whether a proxy answers in the server's place"
ADVICE = {401: WITHHELD, 403: WITHHELD, 404: GONE, 410: GONE}


class Refused(BenchrouterError, OSError):
    """A request that fails however often it is made; the message says what to do."""


class Stopped(BenchrouterError):
    """The run is being ended."""


@dataclass
class Web:
    """How servers are spoken to. Proxies and certificates are those of the environment.

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

    Raises
    ------
    ValueError
        If the environment names no proxy, or no certificates, where it should.
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
        self._hint = f" ({self.hint})" if self.hint else ""
        try:
            trusted = httpx.create_ssl_context()  # certifi's certificates, or SSL_CERT_FILE's
            trusted.load_default_certs()  # and the system's, where a company puts its own
            self._client = httpx.Client(
                verify=trusted,
                follow_redirects=True,
                headers={"User-Agent": "benchrouter"},
                event_hooks={"response": [_stay_on_https]},
            )
        except (OSError, ValueError, httpx.InvalidURL) as e:
            raise ValueError(
                "a variable of the environment is not as expected, of SSL_CERT_FILE, HTTPS_PROXY, "
                f"HTTP_PROXY, ALL_PROXY and NO_PROXY: {e}"
            ) from e

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def stream(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Make one request; within, its answer can be read, of status 200, 206 or 416.

        Raises
        ------
        httpx.HTTPError
            If it failed, also within; `pause` tells whether it may be made again.
        Refused
            If another answers in the server's place.
        """
        self.check()
        token = self.tokens.get(urlsplit(url).netloc)
        if token:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        try:
            with self._client.stream("GET", url, headers=headers, timeout=self.timeout) as response:
                if response.status_code != 416:
                    response.raise_for_status()
                    if response.headers.get("Content-Type", "").startswith("text/html"):
                        raise Refused(f"{url}: {ANOTHER}{self._hint}")
                yield response
        except httpx.InvalidURL as e:
            raise Refused(f"{url}: {e}") from e

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
                with self.stream(url, {"Accept": "application/json"}) as response:
                    text = response.read()
                break
            except httpx.HTTPError as e:
                failures += 1
                self.pause(url, e, failures)
        try:
            return json.loads(text)
        except ValueError as e:
            raise ValueError(f"{url}: expected JSON, found {text[:60]!r}: {e}") from e

    def pause(self, url: str, error: httpx.HTTPError, failures: int) -> None:
        """Wait before the next attempt.

        Parameters
        ----------
        url : str
        error : httpx.HTTPError
            Why the last attempt failed.
        failures : int
            In a row, at least 1.

        Raises
        ------
        Refused
            If another attempt is of no use, it is one failure too many, or the server asks for too
            long a wait.
        """
        what, mendable = _verdict(error)
        if not mendable:
            raise Refused(f"{url}: {what}{self._hint}")
        if failures >= self.attempts:
            raise Refused(
                f"{url}: given up after {failures} failures in a row, the last one: {what}; run "
                "the command again to go on with what has been fetched"
            )
        wait = min(2.0 ** (failures - 1), LONGEST_BACKOFF)
        if isinstance(error, httpx.HTTPStatusError):
            wait = _seconds_asked_for(error.response, self.now(), wait)
        if wait > LONGEST_WAIT:
            raise Refused(
                f"{url}: {what}, and the server asks to wait {wait:,.0f} s; run the command again "
                "then to go on with what has been fetched"
            )
        if wait >= 1:
            self.tell(f"note: {url}: {what}; next attempt in {wait:.0f} s")
        (self.sleep or self.stop.wait)(wait)

    def check(self) -> None:
        """Raise `Stopped` if the run is being ended."""
        if self.stop.is_set():
            raise Stopped


def _verdict(error: httpx.HTTPError) -> tuple[str, bool]:
    """What failed, and whether another attempt may mend it; if not, also what may."""
    if isinstance(error, httpx.TimeoutException):
        return "no byte came in time", True
    if isinstance(error, httpx.HTTPStatusError):
        code = error.response.status_code
        return f"{code} {error.response.reason_phrase}{ADVICE.get(code, '')}", code in RETRIED
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}); where a proxy has "
                "certificates of its own, SSL_CERT_FILE must name them"
            ), False
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return "no such host is known here, or no such proxy; HTTPS_PROXY names one", False
        cause = cause.__cause__ or cause.__context__
    by_proxy = isinstance(error, httpx.ProxyError) and str(error).startswith("4")  # 403, 407 …
    final = by_proxy or isinstance(error, (httpx.UnsupportedProtocol, httpx.TooManyRedirects))
    return str(error) or type(error).__name__, not final


def _seconds_asked_for(response: httpx.Response, now: float, otherwise: float) -> float:
    """Seconds to wait, by Retry-After (a number or a date) or the Hub's RateLimit."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        window = re.search(r"\br=0\s*;\s*t=(\d+)", response.headers.get("RateLimit", ""))
        return float(window[1]) if window else otherwise


def _stay_on_https(response: httpx.Response) -> None:
    to = response.headers.get("Location", "") if response.has_redirect_location else ""
    if response.url.scheme == "https" and urlsplit(to).scheme not in ("", "https"):
        raise Refused(f"{response.url}: redirects to {to}, expected an https address")
