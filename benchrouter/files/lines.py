"""Read lines of plain and compressed files; a file cut off is an error."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from benchrouter.files.errors import BadInput
from benchrouter.files.opened import open_file

BOM = b"\xef\xbb\xbf"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
BUFFER_BYTES = 1 << 20


def compression_of(path: str | Path) -> str | None:
    """Compression that a file's suffix names: "gzip", "zstd" or None."""
    return COMPRESSIONS.get(Path(path).suffix.lower())


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if its suffix says so."""
    return _decompressed(open_file(path), compression_of(path))


@contextmanager
def unpack_errors(path: str | Path) -> Iterator[None]:
    """Turn errors of unpacking into a ValueError that names the file."""
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        compression = compression_of(path)
        found = "" if compression is None else f"not a whole {compression} file: "
        raise BadInput(f"{path}: {found}{error}") from error


class LineFile:
    """A file of lines, decompressed if its suffix says so.

    Iterating yields lines with their ends and without a byte order mark; only line feeds end lines.

    Parameters
    ----------
    path : str or Path
        ``-`` reads standard input.
    opened : binary file, optional
        The file, open at its start; `close` leaves it open.

    Attributes
    ----------
    name : str
        The file, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is compressed and cut off or corrupt; while lines are read as well.
    """

    def __init__(self, path: str | Path, opened: BinaryIO | None = None) -> None:
        is_stdin = str(path) == "-"
        self.name = "standard input" if is_stdin else str(path)
        given = sys.stdin.buffer if is_stdin else opened
        self._raw: BinaryIO = open_file(path) if given is None else given
        self._is_ours = given is None
        self._compression = None if is_stdin else compression_of(path)
        self._n_bytes = None if is_stdin else _size(self._raw)
        if self._compression is not None and self._n_bytes == 0:
            self.close()
            raise BadInput(f"{self.name}: not a whole {self._compression} file: it is empty")
        self._stream = _decompressed(self._raw, self._compression)

    def __iter__(self) -> Iterator[bytes]:
        with unpack_errors(self.name):
            for number, line in enumerate(self._stream):
                yield line.removeprefix(BOM) if number == 0 else line

    def begins_with(self, start: bytes) -> bool:
        """Whether the first line begins with `start`; only before lines are read."""
        return self.start(len(start)).startswith(start)

    def start(self, n_bytes: int) -> bytes:
        """First bytes, at least `n_bytes` if there are as many; only before lines are read."""
        found: bytes = self._stream.peek(len(BOM) + n_bytes)  # type: ignore[attr-defined]
        return found.removeprefix(BOM)

    def read(self, n_bytes: int = -1) -> bytes:
        """Up to so many of the bytes that follow the lines read so far."""
        return self._stream.read(n_bytes)

    def rewind(self) -> None:
        """Begin again with the first line; not for standard input."""
        self._raw.seek(0)
        self._stream = _decompressed(self._raw, self._compression)

    @property
    def share(self) -> float | None:
        """Share of the file's bytes that have been read; None if its size is not known."""
        return None if not self._n_bytes else self._raw.tell() / self._n_bytes

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._is_ours:
            self._raw.close()

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Unclosed(io.RawIOBase):
    """Reads a file, and leaves it open when pyarrow closes this."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        return self._raw.read(n)


def _size(file: BinaryIO) -> int | None:
    """Bytes of a regular file, None for a pipe."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _decompressed(raw: BinaryIO, compression: str | None) -> BinaryIO:
    if compression is None:
        return raw
    stream: Any
    if compression == "gzip":
        stream = gzip.GzipFile(fileobj=raw, mode="rb")
        stream.myfileobj = raw  # which it closes with itself
    else:
        import pyarrow as pa

        stream = pa.CompressedInputStream(_Unclosed(raw), compression)
    return cast(BinaryIO, io.BufferedReader(stream, BUFFER_BYTES))
