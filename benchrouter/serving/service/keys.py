"""API keys: where they are read, and how a request's is compared."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

ENVIRONMENT = "BENCHROUTER_API_KEY"


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys, one a line; empty lines and those that begin with # are passed over.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        Naming the file and the line, where there is no key or something else than one.
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
    """Digests of the keys that are let in; none = everyone is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def admit(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether the headers hold one of the keys, in a time that says nothing of it.

        Parameters
        ----------
        headers : sequence of (bytes, bytes)
            As ASGI gives them: names in lower case.

        Returns
        -------
        bool
        """
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
