"""Records of CSV, one by one, with fields of any length.

Python's csv module stops at fields of 128 KiB, and its limit can only be moved for the whole
process, which is for the program to decide and not for a library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchrouter.files.errors import BadInput

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
    """Lines as text, which remembers those of the record that is being read.

    Parameters
    ----------
    lines : iterable of bytes
        With their ends.

    Attributes
    ----------
    held : list of bytes
        Lines taken since the last `forget`, as they were, the first `HELD_BYTES` or so of them.
    not_utf8 : str or None
        Why one of those lines is not UTF-8; its bytes are then surrogates of the text.
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


def csv_reader(lines: DecodedLines, name: str) -> tuple[CsvRecords, list[str]]:
    """Start reading CSV.

    Parameters
    ----------
    lines : DecodedLines
    name : str
        The file, for messages.

    Returns
    -------
    reader : CsvRecords
        Stands behind the header; raises `CsvError` for a record that is not CSV.
    header : list of str
        Names of the columns, all different.

    Raises
    ------
    ValueError
        For an empty file, or a header that is not CSV, is not UTF-8 or names a column twice.
    """
    reader = CsvRecords(lines)
    try:
        header = next(reader)
    except StopIteration:
        raise ValueError(f"{name}: found an empty file, expected a header line") from None
    except CsvError as e:
        raise ValueError(f"{name}, line 1: found no CSV header ({e})") from e
    if lines.not_utf8:
        raise ValueError(f"{name}, line 1: found text that is not UTF-8 ({lines.not_utf8})")
    if len(set(header)) < len(header):
        raise ValueError(f"{name}, line 1: found a column name twice in {header}")
    return reader, header


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
