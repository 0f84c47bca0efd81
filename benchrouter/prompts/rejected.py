"""Bad records of a file of prompts, and the side file that lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.os_errors import naming

RAW_CHARACTERS = 1000  # of a bad record's text


@dataclass(frozen=True)
class Rejected:
    r"""A record that is no prompt.

    Attributes
    ----------
    source : str
        The file.
    row : int
        Position among its records, from 0.
    line : int or None
        Its first line, from 1; None in Parquet, which has no lines.
    reason : str
        What was found and what was expected.
    raw : str or None
        At most `RAW_CHARACTERS` of the record's text, bytes that are not UTF-8 as ``\xNN``; from
        Parquet only the prompt, None for null.
    """

    source: str
    row: int
    line: int | None
    reason: str
    raw: str | None

    @property
    def message(self) -> str:
        """One line that names the file and the place."""
        place = f"row {self.row}" if self.line is None else f"line {self.line}"
        return f"{self.source}, {place}: {self.reason}"


def raw_text(lines: Iterable[bytes]) -> str:
    """Text of a bad record as it is kept: cut short, without the end of its last line."""
    most = b"".join(lines)[: 4 * RAW_CHARACTERS + 2]  # UTF-8 has at most 4 bytes a character
    most = most.removesuffix(b"\n").removesuffix(b"\r")
    return most.decode(errors="backslashreplace")[:RAW_CHARACTERS]


class RejectedWriter:
    """Writes bad records as JSONL: ``row``, ``line``, ``reason``, ``raw``.

    `close` puts the file in place if there is a bad record; otherwise it removes one that an
    earlier run left.

    Parameters
    ----------
    target : Path
        Its directory is made when it is needed.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._partial = partial_of(target)
        self._file: TextIO | None = None

    def write(self, rejected: Iterable[Rejected]) -> None:
        """Write records.

        Raises
        ------
        OSError
            If they cannot be written; it names the file, as that of `close` does.
        """
        with naming(self.target):
            for record in rejected:
                if self._file is None:
                    self.target.parent.mkdir(exist_ok=True)
                    self._file = open(  # noqa: SIM115  closed by close() or abort()
                        self._partial, "w", encoding="utf-8", newline="\n"
                    )
                content = {
                    "row": record.row,
                    "line": record.line,
                    "reason": record.reason,
                    "raw": record.raw,
                }
                self._file.write(json.dumps(content, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file and give it its name."""
        with naming(self.target):
            if self._file is None:
                if self.target.is_file():  # of an earlier run; nothing else is taken away
                    self.target.unlink()
            else:
                self._file.close()
                put_file(self._partial, self.target)

    def abort(self) -> None:
        """Drop what was written."""
        if self._file is not None:
            with suppress(OSError):  # what is left to write may not fit either
                self._file.close()
            self._partial.unlink(missing_ok=True)


@contextmanager
def side_file(path: Path | None) -> Iterator[Callable[[Iterable[Rejected]], None]]:
    """Write bad records, by the function that is yielded, to a file that appears at the end.

    Without a path they are dropped. See `RejectedWriter`.
    """
    if path is None:
        yield lambda records: None
        return
    writer = RejectedWriter(path)
    try:
        yield writer.write
        writer.close()
    finally:
        writer.abort()
