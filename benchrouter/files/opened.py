"""Files that are opened once, however often they are read."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

BUFFER_BYTES = 1 << 16
MOST_OPEN = 64  # files kept open; the one used least recently is closed first


class _Opened:
    """A file that is open as long as somebody reads it or may read it again."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def is_at(self, path: Path) -> bool:
        """Whether the file still has that path, rather than one put in its place."""
        return os.path.samestat(os.fstat(self.descriptor), os.stat(path))


class _Reader(io.RawIOBase):
    """Reads an opened file from its start; several may read it at once."""

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._opened.descriptor

    def readinto(self, buffer: Any) -> int:
        n = os.preadv(self._opened.descriptor, [buffer], self._at)
        self._at += n
        return n

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self._opened.descriptor).st_size
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


_held: ContextVar[dict[Path, _Opened] | None] = ContextVar("held", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """Keep files open that `open_file` opens, so that it need not open them again.

    That holds in this thread, for the last `MOST_OPEN` files. Recognising a format, reading it and
    taking its checksum are then one look at the same file.
    """
    if _held.get() is not None:
        yield
        return
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a file for reading, as ``open(path, "rb")`` does; see `opened_once`."""
    path, held = Path(path), _held.get()
    if not stat.S_ISREG(os.stat(path).st_mode):
        return open(path, "rb")
    opened = None if held is None else held.pop(path, None)
    if opened is None or not opened.is_at(path):
        opened = _Opened(path)
    if held is not None:
        held[path] = opened  # as the one used last
        if len(held) > MOST_OPEN:
            del held[next(iter(held))]
    return io.BufferedReader(_Reader(opened), BUFFER_BYTES)
