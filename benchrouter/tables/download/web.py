"""Make requests, and decide which failures are retried, and when."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from fsspec.implementations.http import HTTPFile, HTTPFileSystem
from huggingface_hub.utils import build_hf_headers, get_session

from benchrouter.files.errors import BenchrouterError

HUB = "https://huggingface.co"
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 900.0  # seconds that a server may ask for
BLOCK_BYTES = 1 << 23  # asked for at a time
WITHHELD = (
    ": the server does not give it to you; if it asks for an account or for consent, set HF_TOKEN, "
    "and see whether a proxy answers in its place"
)
GONE = ": nothing is there; it was moved, or the name is wrong"
ADVICE = {401: WITHHELD, 403: WITHHELD, 404: GONE, 410: GONE}

T = TypeVar("T")


class DownloadRefused(BenchrouterError, OSError):
    """A request was refused or failed too often; the message says what to do."""


class Stopped(BenchrouterError):
    """The run is being ended."""


def hub() -> str:
    """Address of the Hub, or of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


@dataclass
class Web:
    """Makes requests, with the proxies and certificates of the environment.

    Attributes
    ----------
    hint : str
        Advice for when a server refuses something.
    tell : callable
        Takes a line for the user.
    timeout : float
        Seconds without a byte after which a connection counts as dropped.
    attempts : int
        Failures in a row before a request is given up.
    stop : threading.Event
        Ends waiting and reading, in all threads.
    sleep, now : callable
        The clock, for tests.

    Raises
    ------
    ValueError
        If a variable of the environment names no proxy or no certificates.
    """

    hint: str = ""
    tell: Callable[[str], None] = lambda line: None
    timeout: float = 30.0
    attempts: int = 6
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], object] | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._hint = f" ({self.hint})" if self.hint else ""
        try:
            get_session()
        except (OSError, ValueError) as e:
            raise ValueError(
                "a variable of the environment is not as expected, of SSL_CERT_FILE, HTTPS_PROXY, "
                f"HTTP_PROXY, ALL_PROXY and NO_PROXY: {e}"
            ) from e
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.timeout, sock_read=self.timeout
        )
        self._files = HTTPFileSystem(
            encoded=True,
            skip_instance_cache=True,
            client_kwargs={"timeout": timeout, "trust_env": True, "auto_decompress": False},
        )

    def read(self, url: str) -> bytes:
        """Fetch a small document."""
        ask = partial(self._files.cat_file, url, headers={"Accept-Encoding": "identity"})
        return bytes(self.attempt(url, ask))

    def open(self, url: str, size: int, encoding: str) -> HTTPFile:
        """Open a file of `size` bytes as they are sent, "gzip" or "identity".

        The Hub alone is sent the token of the environment.
        """
        headers = {"Accept-Encoding": encoding}
        if url.startswith(f"{hub()}/"):
            headers |= build_hf_headers()
        return self._files.open(
            url, block_size=BLOCK_BYTES, cache_type="none", size=size, headers=headers
        )

    def attempt(self, url: str, call: Callable[..., T], *args: object) -> T:
        """Make a request, and retry it after failures.

        Parameters
        ----------
        url : str
            The address, for messages.
        call : callable
            Makes the request, given `args`.

        Raises
        ------
        DownloadRefused
            If a retry is pointless, there were too many failures, or the server asks for too long a
            wait.
        ValueError, TypeError, LookupError, AttributeError
            As `call` raises them.
        Stopped
            If the run is being ended.
        """
        failures = 0
        while True:
            self.check()
            try:
                return call(*args)
            except Exception as e:  # what the two libraries raise has no common class
                wrong = isinstance(e, (ValueError, TypeError, LookupError, AttributeError))
                if wrong and not isinstance(e, (OSError, aiohttp.ClientError)):
                    raise
                failures += 1
                self._pause(url, e, failures)

    def check(self) -> None:
        """Raise `Stopped` if the run is being ended."""
        if self.stop.is_set():
            raise Stopped

    def _pause(self, url: str, error: Exception, failures: int) -> None:
        """Wait before the next attempt, or raise `DownloadRefused`."""
        what, mendable = _verdict(error)
        if not mendable:
            raise DownloadRefused(f"{url}: {what}{self._hint}") from error
        if failures >= self.attempts:
            raise DownloadRefused(
                f"{url}: given up after {failures} failures in a row, the last one: {what}; run "
                "the command again to go on with what has been fetched"
            ) from error
        wait = _seconds_asked_for(error, self.now(), min(2.0 ** (failures - 1), LONGEST_BACKOFF))
        if wait > LONGEST_WAIT:
            raise DownloadRefused(
                f"{url}: {what}, and the server asks to wait {wait:,.0f} s; run the command again "
                "then to go on with what has been fetched"
            ) from error
        if wait >= 1:
            self.tell(f"note: {url}: {what}; next attempt in {wait:.0f} s")
        (self.sleep or self.stop.wait)(wait)


def _status(error: Exception) -> int | None:
    if isinstance(error, FileNotFoundError) and error.errno is None:  # so fsspec says 404
        return 404
    response: Any = getattr(error, "response", None)
    return getattr(error, "status", None) or getattr(response, "status_code", None)


def _verdict(error: Exception) -> tuple[str, bool]:
    """What failed, with advice, and whether a retry may help."""
    code = _status(error)
    if code is not None:
        known = code in HTTPStatus._value2member_map_
        phrase = f" {HTTPStatus(code).phrase}" if known else ""
        return f"{code}{phrase}{ADVICE.get(code, '')}", code in RETRIED
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no byte came in time", True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return (
                f"its certificate is not trusted ({cause.verify_message}); where a proxy has "
                "certificates of its own, SSL_CERT_FILE must name them"
            ), False
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return "no such host is known here, or no such proxy; HTTPS_PROXY names one", False
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, aiohttp.TooManyRedirects):
        return "too many redirects", False
    by_proxy = type(error).__name__ == "ProxyError"  # 407 …, of huggingface_hub
    final = by_proxy or isinstance(error, (aiohttp.InvalidURL, aiohttp.RedirectClientError))
    return str(error) or type(error).__name__, not final


def _seconds_asked_for(error: Exception, now: float, otherwise: float) -> float:
    """Seconds to wait, by Retry-After (a number or a date) or the Hub's RateLimit."""
    response: Any = getattr(error, "response", error)
    headers = getattr(response, "headers", None) or {}
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        window = re.search(r"\br=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
        return float(window[1]) if window else otherwise
