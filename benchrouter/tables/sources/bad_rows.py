"""Rows that cannot be read: raise at the first, or list them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.files.words import counted
from benchrouter.tables.sources.source import Source


class BadRows:
    """Unreadable rows of one source, and why.

    Parameters
    ----------
    source : Source
        Where the rows come from.
    on_error : str
        "raise": the first bad row is a ValueError; "skip": bad rows are listed and left out.
    """

    def __init__(self, source: Source, on_error: str) -> None:
        self.source = source
        self.on_error = on_error
        self.keep = np.ones(source.n_rows, dtype=bool)
        self._found: list[tuple[int, str]] = []
        for position, found in source.unreadable:
            self._report(position, found, len(source.unreadable))

    def add(self, bad: NDArray[np.bool_], found: Callable[[int], str]) -> None:
        """Take rows out.

        Parameters
        ----------
        bad : bool array, shape (n_rows,)
            Rows to take out; those already out are not reported twice.
        found : callable
            Row number to what was found and what was expected.

        Raises
        ------
        ValueError
            At the first bad row, if `on_error` is "raise".
        """
        rows = np.flatnonzero(bad & self.keep)
        for row in rows.tolist():
            self._report(int(self.source.positions[row]), found(row), len(rows))
        self.keep[rows] = False

    def add_cells(self, bad: NDArray[np.bool_], column: str, what: str, expected: str) -> None:
        """Take out rows for a cell: ``WHAT is CELL, expected EXPECTED``."""
        self.add(bad, lambda row: f"{what} is {self.source.cell(column, row)}, expected {expected}")

    def messages(self) -> list[str]:
        """Messages for all rows left out, in the order of the file."""
        return [message for _, message in sorted(self._found)]

    def _report(self, position: int, found: str, n_alike: int) -> None:
        message = f"{self.source.place_of_position(position)}: {found}"
        if self.on_error == "raise":
            more = f" ({counted(n_alike - 1, 'more such row')})" if n_alike > 1 else ""
            raise BadInput(message + more)
        self._found.append((position, message))
