"""One file: received in a hidden one, gone on with after a break, checked, and only then named.

huggingface_hub does not fetch the Hub's: it holds a file against its size, not against the SHA-256
that the Hub states, and HELM's, which lie elsewhere, need all of this anyway.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import google_crc32c
import httpx

from benchrouter.files.atomic import put_file
from benchrouter.files.os_errors import naming
from benchrouter.tables.download.listing import Remote
from benchrouter.tables.download.web import Web

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHUNK = 1 << 20

Advance = Callable[[int], None]


class Partial:
    """What has been received of a file, as ``.NAME.partial``, and of which version it is.

    Parameters
    ----------
    target : Path
        The file that it will be.
    remote : Remote

    Attributes
    ----------
    path : Path
    kept : bool
        Whether it holds bytes of an earlier run.
    joined : bool
        Whether it may hold bytes of several answers.
    """

    def __init__(self, target: Path, remote: Remote) -> None:
        self.path = target.with_name(f".{target.name}.partial")
        self._note = target.with_name(f".{target.name}.partial.json")
        self._version = remote.checksum or remote.url
        self._most = remote.size
        self.kept = self.joined = self.size > 0

    @property
    def size(self) -> int:
        """Bytes that need not be sent again."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return 0
        return size if size <= self._most and self._noted().get("of") == self._version else 0

    @property
    def validator(self) -> str | None:
        """ETag or date by which the server tells whether the file is still the same."""
        return self._noted().get("validator")

    def begin(self, validator: str | None) -> None:
        """Start anew with an empty file."""
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps({"of": self._version, "validator": validator}))
        self.kept = self.joined = False

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def unpacked_size(self) -> int:
        """Bytes of what is gzipped in it, of files below 4 GiB."""
        with open(self.path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(), "little")

    def put(self, target: Path, gzipped: bool) -> None:
        """Give it its name."""
        whole = self.path
        if gzipped:
            whole = target.with_name(f".{target.name}.unpacked")
            try:
                with gzip.open(self.path, "rb") as packed, open(whole, "wb") as plain:
                    shutil.copyfileobj(packed, plain, CHUNK)
            except (EOFError, zlib.error, gzip.BadGzipFile) as e:
                whole.unlink(missing_ok=True)
                raise ValueError(f"{self.path}: not a whole gzip file: {e}") from e
            except BaseException:
                whole.unlink(missing_ok=True)
                raise
        put_file(whole, target)
        self.discard()

    def _noted(self) -> dict[str, str | None]:
        try:
            return dict(json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return {}


def fetch(remote: Remote, target: Path, *, web: Web, advance: Advance) -> bool:
    """Fetch a file, or the rest of it.

    Parameters
    ----------
    remote : Remote
    target : Path
        Made or replaced, in one step.
    web : Web
    advance : callable
        Takes the number of bytes received since its last call; negative if bytes are thrown away.

    Returns
    -------
    bool
        Whether the bytes of an earlier run were gone on with.

    Raises
    ------
    Refused
        If the server refuses it or fails too often; what came stays for the next run.
    ValueError
        If its size or checksum is not as listed.
    OSError
        If it cannot be written; a full disk says what is needed and free.
    """
    partial = Partial(target, remote)
    with naming(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with room_for(target.parent, lambda: remote.size - partial.size):
        if not partial.kept:
            partial.discard()
        for last in (False, True):
            _receive_all(remote, partial, web, advance)
            found = checksum_of(partial.path, remote.checksum)
            if found == remote.checksum:
                break
            one_piece = not partial.joined
            partial.discard()
            if one_piece or last:
                raise ValueError(f"{remote.url}: found {found}, expected {remote.checksum}")
            advance(-remote.size)  # its pieces may be of different files
    with room_for(target.parent, partial.unpacked_size):
        partial.put(target, remote.gzipped)
    return partial.kept


def checksum_of(path: Path, like: str | None) -> str | None:
    """Checksum of a file, by the algorithm of another one; None for None.

    Parameters
    ----------
    path : Path
    like : str or None
        ``sha256:…``, ``md5:…``, ``crc32c:…`` or ``git-sha1:…`` (of git's blob, which begins with
        its length).
    """
    if like is None:
        return None
    algorithm = like.partition(":")[0]
    if algorithm == "crc32c":
        state = google_crc32c.Checksum()
    else:
        state = hashlib.new(algorithm.removeprefix("git-"), usedforsecurity=False)
    if algorithm == "git-sha1":
        state.update(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            state.update(block)
    return f"{algorithm}:{state.digest().hex()}"


@contextmanager
def room_for(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Within, a full disk says how many bytes are needed yet, and how many are free.

    Raises
    ------
    OSError
        Naming `folder`.
    """
    try:
        yield
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        raise no_room(folder, needed(), e.errno) from e


def no_room(folder: Path, needed: int, code: int = errno.ENOSPC) -> OSError:
    """The error of a folder that has not the bytes needed."""
    free = shutil.disk_usage(folder).free
    return OSError(
        code,
        f"{os.strerror(code)}: {needed:,} bytes are needed, {free:,} are free; make room, or "
        "choose another place with --cache-dir, and run the command again: what has been fetched "
        "is kept",
        str(folder),
    )


def _receive_all(remote: Remote, partial: Partial, web: Web, advance: Advance) -> None:
    failures = 0
    while partial.size < remote.size or not partial.path.exists():
        before = partial.size
        try:
            _receive(remote, partial, web, advance)
        except httpx.HTTPError as e:
            failures = 1 if partial.size > before else failures + 1
            web.pause(remote.url, e, failures)


def _receive(remote: Remote, partial: Partial, web: Web, advance: Advance) -> None:
    """One request, for what is missing."""
    have = partial.size
    headers = {"Accept-Encoding": "gzip" if remote.gzipped else "identity"}
    # without a validator only the checksum tells whether the rest belongs to the beginning
    if have and (partial.validator or remote.checksum):
        headers["Range"] = f"bytes={have}-"
        if partial.validator:
            headers["If-Range"] = partial.validator
    with web.stream(remote.url, headers) as response:
        start, total = _extent(response)
        if total is not None and total != remote.size:
            raise ValueError(
                f"{remote.url}: found {total:,} bytes, expected {remote.size:,} as listed; if it "
                "has changed just now, run the command again"
            )
        validator = _validator(response)
        other = bool(validator and partial.validator and validator != partial.validator)
        if response.status_code != 200 and (start != have or other):
            partial.discard()
            advance(-have)
            raise httpx.RemoteProtocolError(
                f"the server does not go on with the file after {have:,} bytes"
            )
        if have and response.status_code == 206:
            partial.joined = True
        else:
            partial.begin(validator)
            advance(-have)
            have = 0
        cut_short = suppress(httpx.RemoteProtocolError)  # seen by the bytes that lack
        with open(partial.path, "ab", buffering=0) as file, cut_short:
            for block in response.iter_raw():
                web.check()  # what was read before the stop is not written after it
                have += len(block)
                if have > remote.size:
                    raise ValueError(
                        f"{remote.url}: found more than the {remote.size:,} bytes listed"
                    )
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
                advance(len(block))
    if have < remote.size:
        raise httpx.ReadError(f"the connection ended after {have:,} of {remote.size:,} bytes")


def _validator(response: httpx.Response) -> str | None:
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return response.headers.get("Last-Modified")


def _extent(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and length of the file, as far as the answer says them."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])
