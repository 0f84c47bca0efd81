r"""The one dialect of CSV, of tables, prompts, labels and prices.

UTF-8 with or without a byte order mark; fields parted by commas and quoted by ``"`` as RFC 4180
says; lines end with ``\n`` or ``\r\n``. A malformed quote, a carriage return outside quotes, text
that is not UTF-8 and a wrong number of cells make a bad record; the next one begins with the next
line. NUL is a character like any other. An empty line is no record: tables pass over it, while
prompts, whose rows are counted, refuse it.

Python's csv module stops at fields of 128 KiB, and its limit can only be moved for the whole
process, which is for the program to decide and not for a library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchrouter.files.errors import BadInput
from benchrouter.files.words import check_distinct, counted

HELD_BYTES = 1 << 16  # of the lines of one record


class CsvError(BadInput):
    """Lines that are no CSV record; the next record begins with the next line."""


class CsvRecords:
    r"""Split lines into records and records into fields, as RFC 4180 has them.

    A quote within a field that does not begin with one stands for itself.

    Parameters
    ----------
    lines : iterator of str
        With their ends, ``\n`` or ``\r\n``.

    Attributes
    ----------
    line_num : int
        Number of lines taken so far.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.line_num = 0

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        """Return the fields of the next record, none for an empty line.

        Raises
        ------
        CsvError
            For a quote that is not closed or closes before the end of its field, and for a
            carriage return in a field without quotes.
        """
        line = next(self._lines)
        self.line_num += 1
        if '"' not in line:
            fields = _without_end(line)
            if "\r" in fields:
                raise CsvError("a carriage return within a line")
            return fields.split(",") if fields else []
        return self._quoted(line)

    def _quoted(self, line: str) -> list[str]:
        fields: list[str] = []
        at = 0
        while True:
            if line.startswith('"', at):
                field, line, at = self._quoted_field(line, at + 1)
                rest = line[at : at + 2]
                if not rest.startswith(",") and _without_end(rest):
                    raise CsvError("a quote that closes before the end of its field")
                end = at if rest.startswith(",") else -1
            else:
                end = line.find(",", at)
                field = line[at:end] if end >= 0 else _without_end(line[at:])
                if "\r" in field:
                    raise CsvError("a carriage return within a line")
            fields.append(field)
            if end < 0:
                return fields
            at = end + 1

    def _quoted_field(self, line: str, at: int) -> tuple[str, str, int]:
        """Field that was opened before `at`, the line in which it is closed, and where it ends."""
        parts: list[str] = []
        while True:
            end = line.find('"', at)
            if end < 0:
                parts.append(line[at:])
                try:
                    line = next(self._lines)
                except StopIteration:
                    raise CsvError("an opening quote without a closing one") from None
                self.line_num += 1
                at = 0
            elif line.startswith('"', end + 1):
                parts.append(line[at : end + 1])
                at = end + 2
            else:
                parts.append(line[at:end])
                return "".join(parts), line, end + 1


class DecodedLines:
    """Decodes lines, and keeps the bytes of the current record.

    Parameters
    ----------
    lines : iterable of bytes
        With their ends.

    Attributes
    ----------
    held : list of bytes
        The lines read since the last `forget`, about the first `HELD_BYTES` of them.
    not_utf8 : str or None
        Why one of those lines is not UTF-8; its text then holds surrogates.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.forget()

    def forget(self) -> None:
        """Begin the next record."""
        self.held: list[bytes] = []
        self._n_bytes = 0
        self.not_utf8: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if self._n_bytes < HELD_BYTES:
            self.held.append(line)
            self._n_bytes += len(line)
        try:
            return line.decode()
        except UnicodeDecodeError as e:
            self.not_utf8 = self.not_utf8 or e.reason
            return line.decode(errors="surrogateescape")


class CsvRow(NamedTuple):
    """A record of a CSV file, or what is wrong with it.

    Attributes
    ----------
    line : int
        Line on which it begins, from 1.
    cells : list of str
        One for each column; none for an empty line.
    wrong : str
        What was found and expected; empty for a good record.
    raw : list of bytes
        Its lines, the first `HELD_BYTES` or so of them.
    """

    line: int
    cells: list[str]
    wrong: str
    raw: list[bytes]

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty line."""
        return self.raw[0] in (b"\n", b"\r\n", b"\r")


class CsvRows:
    """The header and the rows of a CSV file.

    Parameters
    ----------
    lines : iterable of bytes
        All lines of the file with their ends, without a byte order mark.
    name : str
        The file, for messages.

    Attributes
    ----------
    header : list of str
        Names of the columns, all different.
    n_lines : int
        Number of lines read so far.

    Raises
    ------
    ValueError
        For an empty file, or a header that is not CSV, is not UTF-8 or names a column twice.
    """

    def __init__(self, lines: Iterable[bytes], name: str) -> None:
        self._lines = DecodedLines(lines)
        self._records = CsvRecords(self._lines)
        try:
            while not (header := next(self._records)):
                self._lines.forget()
        except StopIteration:
            raise BadInput(f"{name}: found an empty file, expected a header line") from None
        except CsvError as e:
            where = f"{name}, line {self._records.line_num}"
            raise BadInput(f"{where}: found no CSV header ({e})") from e
        where = f"{name}, line {self._records.line_num}"
        if self._lines.not_utf8:
            raise BadInput(f"{where}: found text that is not UTF-8 ({self._lines.not_utf8})")
        check_distinct(where, header)
        self.header = header

    @property
    def n_lines(self) -> int:  # noqa: D102
        return self._records.line_num

    def __iter__(self) -> Iterator[CsvRow]:
        lines, records, n_columns = self._lines, self._records, len(self.header)
        while True:
            lines.forget()
            line = records.line_num + 1
            cells: list[str] = []
            wrong = ""
            try:
                cells = next(records)
            except StopIteration:
                return
            except CsvError as e:
                wrong = f"found no CSV record ({e}), expected {n_columns} cells"
            if lines.not_utf8:
                wrong = f"found text that is not UTF-8 ({lines.not_utf8}), expected a CSV record"
            elif not wrong and len(cells) != n_columns:
                wrong = f"found {counted(len(cells), 'cell')}, expected {n_columns}"
            yield CsvRow(line, cells, wrong, lines.held)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
