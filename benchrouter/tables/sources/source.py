"""A file or a table in memory as named columns, with the place of every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.words import shown


@dataclass(frozen=True)
class Source:
    """Columns of one input, loaded one at a time.

    Attributes
    ----------
    name : str
        Its name in messages: the path as given.
    stem : str
        Name of its dataset if no column names one.
    columns : dict of str to pyarrow.DataType
        In the order of the file.
    load : callable
        Returns a column as a ``pyarrow.ChunkedArray`` of ``n_rows`` values; text may be
        dictionary-encoded.
    load_coded : callable or None
        The same for a text column, dictionary-encoded, where that is faster.
    positions : int64 array, shape (n_rows,)
        Number of each readable row among all data rows, from 0, ascending.
    n_positions : int
        Data rows of the input, unreadable ones included.
    untyped : frozenset of str
        Text columns that may hold numbers: all of a CSV, the mixed ones of a JSONL.
    not_text : dict of str to bool array, shape (n_rows,)
        Cells of mixed JSONL columns that were not strings in the file.
    lines : callable
        Returns the line of every data row, from 1 (int64), or None if unknown.
    places : callable or None
        Maps a position to its place in messages, if row and line do not say it.
    unreadable : tuple of (int, str)
        Positions of unreadable rows, with what was found.
    """

    name: str
    stem: str
    columns: Mapping[str, Any]
    load: Callable[[str], Any]
    positions: NDArray[np.int64]
    n_positions: int
    untyped: frozenset[str] = frozenset()
    not_text: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    lines: Callable[[], NDArray[np.int64] | None] = lambda: None
    unreadable: tuple[tuple[int, str], ...] = ()
    load_coded: Callable[[str], Any] | None = None
    places: Callable[[int], str] | None = None

    @property
    def n_rows(self) -> int:
        """Number of readable rows."""
        return len(self.positions)

    def without_columns(self) -> Source:
        """Return a copy without cells that can still name the place of a row."""
        return replace(self, columns={}, load=_no_column, load_coded=None, not_text={})

    def place(self, row: int) -> str:
        """Name, data row from 1 and, where known, line of a readable row."""
        return self.place_of_position(int(self.positions[row]))

    def place_of_position(self, position: int) -> str:
        """Name, data row from 1 and, where known, line of any data row."""
        if self.places is not None:
            return self.places(position)
        lines = self.lines()
        where = f"{self.name}, row {position + 1}"
        return where if lines is None else f"{where} (line {int(lines[position])})"

    def cell(self, column: str, row: int) -> str:
        """One value as a message shows it: short, quoted if it is text."""
        value = self.load(column)[row].as_py()
        untyped_number = column in self.not_text and self.not_text[column][row]
        return value if untyped_number and value is not None else shown(value)

    def list_columns(self) -> str:
        """Names of the columns for a message."""
        return ", ".join(repr(name) for name in self.columns)


def _no_column(name: str) -> Any:
    raise KeyError(name)
