"""Fetch one file into a hidden one, resume after a break, check it, and only then name it.

fsspec reads the blocks. Resuming a file of an earlier run and checking its checksum are done here:
neither fsspec nor huggingface_hub does either.
"""

from __future__ import annotations

import errno
import glob
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
from fsspec.implementations.http import HTTPFile

from benchrouter.files.atomic import put_file
from benchrouter.files.os_errors import naming
from benchrouter.tables.download import web as requests
from benchrouter.tables.download.listing import Remote
from benchrouter.tables.download.web import Web

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHUNK = 1 << 20

Advance = Callable[[int], None]


def partial_of(remote: Remote, target: Path) -> Path:
    """Hidden file for the blocks received; each version of a file has its own."""
    version = hashlib.sha256(f"{remote.checksum} {remote.url}".encode()).hexdigest()[:16]
    return target.with_name(f".{target.name}.{version}.partial")


def bytes_here(remote: Remote, target: Path) -> int:
    """Bytes of an earlier run that need not be sent again; 0 without a checksum."""
    try:
        size = partial_of(remote, target).stat().st_size
    except FileNotFoundError:
        return 0
    return size if remote.checksum and size <= remote.size else 0


def fetch(remote: Remote, target: Path, *, web: Web, advance: Advance) -> bool:
    """Fetch a file or the rest of it.

    Parameters
    ----------
    remote : Remote
    target : Path
        Made or replaced, in one step.
    web : Web
    advance : callable
        Takes the number of bytes received since its last call; negative for bytes dropped.

    Returns
    -------
    bool
        Whether it continued what an earlier run had fetched.

    Raises
    ------
    DownloadRefused
        If the server refuses it or fails too often; the blocks received stay for the next run.
    ValueError
        If its size or checksum is not as listed.
    OSError
        If it cannot be written; on a full disk with the bytes needed and free.
    """
    partial, kept = partial_of(remote, target), bytes_here(remote, target)
    with naming(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if old != partial or not kept:
            old.unlink()
    with room_for(target.parent, lambda: remote.size - bytes_here(remote, target)):
        _receive(remote, partial, web, advance)
    found = checksum_of(partial, remote.checksum)
    if found != remote.checksum:
        partial.unlink()
        if kept:  # the old part may be damaged
            advance(-remote.size)
            return fetch(remote, target, web=web, advance=advance)
        raise ValueError(f"{remote.url}: found {found}, expected {remote.checksum}")
    if remote.gzipped:
        with room_for(target.parent, lambda: _unpacked_size(partial)):
            _unpack(partial, target)
        partial.unlink()
    else:
        put_file(partial, target)
    return kept > 0


def checksum_of(path: Path, like: str | None) -> str | None:
    """Checksum of a file by the algorithm of another checksum; None for None.

    Algorithms are ``sha256:…``, ``md5:…``, ``crc32c:…`` and ``git-sha1:…`` (of a git blob).
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
    """Make a full disk's error name `folder`, and the bytes still needed and free."""
    try:
        yield
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        raise no_room(folder, needed(), e.errno) from e


def no_room(folder: Path, needed: int, code: int = errno.ENOSPC) -> OSError:
    """The error of a folder without room."""
    free = shutil.disk_usage(folder).free
    return OSError(
        code,
        f"{os.strerror(code)}: {needed:,} bytes are needed, {free:,} are free; make room, or "
        "choose another place with --cache-dir, and run the command again: what has been fetched "
        "is kept",
        str(folder),
    )


def _receive(remote: Remote, partial: Path, web: Web, advance: Advance) -> None:
    encoding = "gzip" if remote.gzipped else "identity"
    source = web.open(remote.url, remote.size + 1, encoding)  # a byte more must not be there
    with open(partial, "ab", buffering=0) as file:
        while (have := file.tell()) < remote.size:
            try:
                block = web.attempt(remote.url, _block, source, have, remote)
            except ValueError as e:
                raise ValueError(f"{remote.url}: {e}") from e
            web.check()  # what was read before the stop is not written after it
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
            advance(len(block))


def _block(source: HTTPFile, at: int, remote: Remote) -> bytes:
    expected = min(requests.BLOCK_BYTES, remote.size - at)
    last = at + expected == remote.size
    source.seek(at)
    block = source.read(expected + last)
    if len(block) > expected:
        raise ValueError(f"found more than the {remote.size:,} bytes listed")
    if len(block) < expected:
        raise ConnectionError(
            f"found {len(block):,} bytes in answer to a request for {expected:,}; see whether a "
            "proxy answers in the server's place"
        )
    return bytes(block)


def _unpacked_size(packed: Path) -> int:
    """Unpacked size of a gzip file below 4 GiB."""
    with open(packed, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def _unpack(packed: Path, target: Path) -> None:
    whole = target.with_name(f".{target.name}.unpacked")
    try:
        with gzip.open(packed, "rb") as source, open(whole, "wb") as plain:
            shutil.copyfileobj(source, plain, CHUNK)
        put_file(whole, target)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ValueError(f"{packed}: not a whole gzip file: {e}") from e
    finally:
        whole.unlink(missing_ok=True)
