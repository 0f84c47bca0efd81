"""Who is let in: API keys, and without them the names by which the service is asked."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from benchrouter.serving.service.errors import Refusal

ENVIRONMENT = "BENCHROUTER_API_KEY"
OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})  # without a key
NEVER_PUBLIC = ("localhost", "local", "internal", "home.arpa", "test")  # RFC 6761, 6762, 8375

Headers = Sequence[tuple[bytes, bytes]]  # as ASGI gives them: names in lower case


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys, one a line; empty lines and lines that begin with # are skipped.

    Raises
    ------
    ValueError
        Naming the file and the line, if there is no key or something that is not a key.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: found bytes that are not UTF-8 ({e.reason})") from e
    keys = []
    for number, line in enumerate(lines, start=1):
        key = line.strip()
        if key and not key.startswith("#"):
            keys.append(checked(key, f"{path}, line {number}"))
    if not keys:
        raise ValueError(f"{path}: found no key, expected one a line")
    return tuple(keys)


def checked(key: str, where: str) -> str:
    """Return a key that a header can hold.

    Raises
    ------
    ValueError
        Saying where, without the key.
    """
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise ValueError(f"{where}: expected a key of printable ASCII characters without spaces")
    return key


class Keys:
    """Digests of the keys that are let in; without keys everyone is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    def admit(self, headers: Headers) -> bool:
        """Tell whether the headers hold one of the keys, in constant time."""
        if not self._digests:
            return True
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        found = _digest(key.strip())
        equal = [hmac.compare_digest(found, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(equal)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def is_local(headers: Headers) -> bool:
    """Tell whether Host is an address, or a name that is not on the public internet.

    A page of the web can give its own name the address 127.0.0.1 (DNS rebinding), and its visitor's
    browser then lets it read what a service on that machine answers. It cannot change its name,
    which stands in Host. A request without Host is local.
    """
    return all(_is_local(value.decode("latin-1")) for name, value in headers if name == b"host")


def _is_local(host: str) -> bool:
    if host.startswith("["):  # an address of IPv6
        return True
    name = host.partition(":")[0].rstrip(".").lower()
    if "." not in name or name.endswith(tuple(f".{end}" for end in NEVER_PUBLIC)):
        return True
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


class Admission:
    """ASGI middleware that asks for a key on every path that is not open.

    A dependency would come too late: FastAPI reads the body first, and unknown paths have none.

    Parameters
    ----------
    app : ASGI application
    keys : iterable of str
    only_local_names : bool
        Whether to refuse a Host of the public internet.
    """

    def __init__(self, app: ASGIApp, *, keys: Iterable[str], only_local_names: bool) -> None:
        self._app = app
        self._keys = Keys(keys)
        self._only_local_names = only_local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request."""
        refused = self._refusal(scope) if scope["type"] == "http" else None
        answer = self._app if refused is None else refused.response()
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers: Headers = scope["headers"]
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            # RFC 9112, 6.3: a proxy and h11 may disagree on where such a request ends.
            message = "found both Content-Length and Transfer-Encoding, expected one"
            return Refusal(400, "bad_request", message)
        if self._only_local_names and not is_local(headers):
            return Refusal(
                403,
                "host_not_local",
                "without a key, Host must be an address or a name of this network: give "
                "--api-key-file, or --no-api-key where something before this service asks",
            )
        if path_of(scope) not in OPEN and not self._keys.admit(headers):
            return Refusal(401, "invalid_api_key", "expected Authorization: Bearer KEY")
        return None


def path_of(scope: Scope) -> str:
    """Path of a request below the place where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
