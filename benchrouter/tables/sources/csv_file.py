"""CSV files as sources: Arrow reads regular files, our own reader all others, to the same cells."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Ids
from benchrouter.files.csv_records import CsvRows
from benchrouter.files.lines import BOM, LineFile
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 22  # a file with a longer record is not read by Arrow
BATCH_ROWS = 1 << 14
NEWLINE, RETURN, QUOTE, COMMA = b'\n\r",'


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV file."""
    with LineFile(path) as file:
        return CsvRows(file, str(path)).header


def read_csv(path: Path, stem: str) -> Source:
    """Read a CSV file, all cells as text: "007" is a sample_id, and "NA" may be a prompt.

    Raises
    ------
    ValueError
        For an empty file, or a header that is not CSV, is not UTF-8 or names a column twice.
    """
    wrong: list[tuple[int, str]] = []
    with LineFile(path) as file:
        rows = CsvRows(file, str(path))
        header, checked = rows.header, _Checked(file, rows.n_lines)
        table = _read_regular(checked, header)
        lines = np.concatenate([np.empty(0, np.int64), *checked.lines])
        if table is None or table.num_rows != len(lines):
            checked.end()
            file.rewind()
            table, lines, wrong = _read_any(CsvRows(file, str(path)))
    return Source(
        name=str(path),
        stem=stem,
        columns=dict.fromkeys(header, table.schema.types[0]),
        load=table.column,
        positions=np.delete(np.arange(len(lines)), [position for position, _ in wrong]),
        n_positions=len(lines),
        untyped=frozenset(header),
        lines=lambda: lines,
        unreadable=tuple(wrong),
    )


class _IrregularError(Exception):
    """Arrow may read the file otherwise than `CsvRows`."""


class _Checked:
    """What follows the header of a file, checked while Arrow reads it.

    It is regular if every quote opens a field, closes one or is doubled within one, and every
    carriage return outside quotes stands before a line feed.

    Attributes
    ----------
    lines : list of int64 arrays
        Lines on which records begin.
    """

    closed = False

    def __init__(self, file: LineFile, n_lines: int) -> None:
        self._file = file
        self._n_lines = n_lines
        self._begun = self._ended = False
        self._tail = b""
        self._quoted = False  # whether the next line begins within quotes
        self._lock = Lock()
        self.lines: list[Ids] = []

    def end(self) -> None:
        """Read no more, though Arrow's threads may still ask."""
        with self._lock:
            self._ended = True

    def read(self, n_bytes: int) -> bytes:
        """Read a block; raises `_IrregularError`."""
        with self._lock:
            if self._ended:
                return b""
            block = self._file.read(n_bytes)
            if not self._begun and block.startswith(BOM):
                raise _IrregularError  # which Arrow would drop
            self._begun = True
            lines, end, self._tail = (self._tail + block).rpartition(b"\n")
            if not block and self._tail:
                lines, end, self._tail = self._tail, b"\n", b""
            if end:
                self._check(lines + end)
            if not block and self._quoted:
                raise _IrregularError
            return block

    def _check(self, lines: bytes) -> None:
        text = np.frombuffer(b"\n" + lines, dtype=np.uint8)
        starts = np.flatnonzero(text[:-1] == NEWLINE) + 1
        quotes = np.flatnonzero(text == QUOTE)
        closing, opening = quotes[not self._quoted :: 2], quotes[self._quoted :: 2]
        before, after = text[opening - 1], text[closing + 1]
        regular = (before == COMMA) | (before == NEWLINE) | (before == QUOTE)
        ended = (after == COMMA) | (after == NEWLINE) | (after == QUOTE) | (after == RETURN)
        returns = np.flatnonzero(text == RETURN)
        alone = returns[text[returns + 1] != NEWLINE]
        if not (regular.all() and ended.all() and self._within(quotes, alone).all()):
            raise _IrregularError
        empty = text[starts] == NEWLINE
        empty |= (text[starts] == RETURN) & (text[np.minimum(starts + 1, len(text) - 1)] == NEWLINE)
        firsts = np.flatnonzero(~empty & ~self._within(quotes, starts))
        self.lines.append(self._n_lines + 1 + firsts)
        self._n_lines += len(starts)
        self._quoted ^= len(quotes) % 2 == 1

    def _within(self, quotes: Ids, places: Ids) -> NDArray[np.bool_]:
        """Whether places lie within quotes."""
        if len(quotes) == 0:
            return np.full(len(places), self._quoted)
        return (np.searchsorted(quotes, places) + self._quoted) % 2 == 1


def _read_regular(checked: _Checked, header: list[str]) -> pa.Table | None:
    """Read a file by Arrow; None if it is irregular or has a bad record."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    try:
        return arrow_csv.read_csv(
            pa.PythonFile(checked, mode="r"),
            read_options=arrow_csv.ReadOptions(column_names=header, block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.large_string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, _IrregularError):
        return None


def _read_any(rows: CsvRows) -> tuple[pa.Table, Ids, list[tuple[int, str]]]:
    """Read a file record by record: its good ones, the lines of all, and the bad ones."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.large_string()) for name in rows.header])
    lines: list[int] = []
    wrong: list[tuple[int, str]] = []
    batches: list[pa.RecordBatch] = []
    records: list[list[str]] = []

    def put() -> None:
        columns = zip(*records, strict=True)
        arrays = [pa.array(column, pa.large_string()) for column in columns]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        records.clear()

    for row in rows:
        if row.is_empty:
            continue
        if row.wrong:
            wrong.append((len(lines), row.wrong))
        else:
            records.append(row.cells)
        lines.append(row.line)
        if len(records) == BATCH_ROWS:
            put()
    if records:
        put()
    return pa.Table.from_batches(batches, schema), np.array(lines, dtype=np.int64), wrong
