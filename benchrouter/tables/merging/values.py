"""The values of all parts in one matrix, and what becomes of those that meet in a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.layouts.part import Part
from benchrouter.tables.merging.all_rows import AllRows
from benchrouter.tables.merging.same_record import RecordNumbers

Matrix = NDArray[np.float32]
KINDS: dict[str, Callable[[Part], Matrix | None]] = {
    "score": lambda part: part.scores,
    "cost_usd": lambda part: part.cost_usd,
    "log_likelihood": lambda part: part.log_likelihood,
}


class Values:
    """Places every part's values in the merged matrices.

    Values that meet in a cell and are equal count once. Of others, "error" refuses the later row,
    "first" keeps the first, and "mean" takes the mean of all, equal ones included.

    Parameters
    ----------
    rows : AllRows
    records : RecordNumbers
        Rows that are refused and left out are used no more.
    models : sequence of str
        Of all parts.
    on_conflict : str
        "error", "first" or "mean".
    """

    def __init__(
        self, rows: AllRows, records: RecordNumbers, models: Sequence[str], on_conflict: str
    ) -> None:
        self.rows = rows
        self.records = records
        self.models = models
        self.on_conflict = on_conflict
        number = {model: i for i, model in enumerate(models)}
        self.columns = [np.array([number[m] for m in p.models], np.int64) for p in rows.parts]
        self._rows_by_record: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._clear()

    def _clear(self) -> None:
        # Scores that met an equal one, or another, as arrays of (record, model) numbers.
        self.equal: list[NDArray[np.int64]] = []
        self.differing: list[NDArray[np.int64]] = []
        self.n_differing: Counter[str] = Counter()

    def matrices(self) -> dict[str, Matrix | None]:
        """Merge scores, costs and log-likelihoods.

        Returns
        -------
        dict of str to float32 array, shape (n_records, n_models), or None
            By the keys of `KINDS`; NaN = missing, None = no part has any.

        Raises
        ------
        ValueError
            Shows both values and places.
        """
        if self._is_one_part():
            return {what: values_of(self.rows.parts[0]) for what, values_of in KINDS.items()}
        while True:
            n_usable = int(self.records.usable.sum())
            self._clear()
            found = {what: self._matrix(what) for what in KINDS}
            # A row that is left out for its cost has no say in the scores either.
            if int(self.records.usable.sum()) == n_usable:
                return found

    def _is_one_part(self) -> bool:
        return (
            len(self.rows.parts) == 1
            and len(self.records) == len(self.rows)
            and len(self.models) == len(self.rows.parts[0].models)
        )

    def _matrix(self, what: str) -> Matrix | None:
        values_of = KINDS[what]
        if all(values_of(part) is None for part in self.rows.parts):
            return None
        shape = (len(self.records), len(self.models))
        filled = np.full(shape, np.nan, dtype=np.float32)
        mean = _Mean(shape) if self.on_conflict == "mean" else None
        for at, part in enumerate(self.rows.parts):
            values = values_of(part)
            if values is None:
                continue
            for rows, columns in self._blocks(at):
                mine = values[np.ix_(rows, columns)]
                numbers = self.rows.starts[at] + rows
                at_record, at_model = self.records.record[numbers], self.columns[at][columns]
                cells = np.ix_(at_record, at_model)
                known = filled[cells]
                present = ~np.isnan(mine)
                taken = present & ~np.isnan(known)
                if taken.any():
                    differs = taken & (mine != known)
                    if self.on_conflict == "error":
                        refused = self._refuse(what, numbers, columns, differs)
                        present[refused] = taken[refused] = differs[refused] = False
                    self._count(what, at_record, at_model, taken, differs)
                if mean is not None:
                    mean.add(cells, np.where(present, mine, 0), present)
                filled[cells] = np.where(present & ~taken, mine, known)
        return filled if mean is None else mean.result()

    def _blocks(self, at: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows and columns of a part in which no record and no model stands twice."""
        start, end = self.rows.starts[at], self.rows.starts[at + 1]
        rows = np.flatnonzero(self.records.usable[start:end])
        columns = _layers(self.columns[at])
        for layer in _layers(self.records.record[start:end][rows]):
            for some in columns:
                yield rows[layer], some

    def _count(
        self,
        what: str,
        record: NDArray[np.int64],
        model: NDArray[np.int64],
        taken: NDArray[np.bool_],
        differs: NDArray[np.bool_],
    ) -> None:
        self.n_differing[what] += int(differs.sum())
        if what != "score":
            return
        for noted, mask in ((self.equal, taken & ~differs), (self.differing, differs)):
            i, j = np.nonzero(mask)
            noted.append(np.stack([record[i], model[j]]))

    def _refuse(
        self,
        what: str,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        differs: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Report rows with a value that is another elsewhere; return their numbers in the block."""
        refused = np.flatnonzero(differs.any(axis=1))
        for i in refused.tolist():
            column = int(columns[np.flatnonzero(differs[i])[0]])
            message = self._conflict(what, int(rows[i]), column)
            self.rows.leave_out(int(rows[i]), message, len(refused))
        self.records.usable[rows[refused]] = False
        return refused

    def _conflict(self, what: str, row: int, column: int) -> str:
        at = self.rows.part_of(row)
        part = self.rows.parts[at]
        other_row, other_column = self._first(what, row, int(self.columns[at][column]))
        mine, theirs = (
            self._value(what, *place) for place in ((row, column), (other_row, other_column))
        )
        # Enough digits to tell them apart.
        shown = (f"{mine:g}", f"{theirs:g}")
        if shown[0] == shown[1]:
            shown = (f"{mine:.9g}", f"{theirs:.9g}")
        return (
            f"{self.rows.place(row, column)}: {what} of model {part.models[column]!r}"
            f"{self._read_as(row, column)} for {self.rows.key(row)} is {shown[0]}, but {shown[1]} "
            f"in {self.rows.place(other_row, other_column)}{self._read_as(other_row, other_column)}"
            "; expected one of them, or 'first' or 'mean' to settle it (on_conflict, --on-conflict)"
        )

    def _read_as(self, row: int, column: int) -> str:
        part = self.rows.parts[self.rows.part_of(row)]
        is_other = bool(part.read_as) and part.read_as[column] != part.models[column]
        return f" (read as {part.read_as[column]!r})" if is_other else ""

    def _value(self, what: str, row: int, column: int) -> float:
        at = self.rows.part_of(row)
        values = KINDS[what](self.rows.parts[at])
        assert values is not None  # a value of it was met
        return float(values[row - self.rows.starts[at], column])

    def _first(self, what: str, row: int, model: int) -> tuple[int, int]:
        """Row and column that the value in the cell of a row and a model came from."""
        if self._rows_by_record is None:
            order = np.argsort(self.records.record, kind="stable")
            starts = np.searchsorted(self.records.record[order], np.arange(len(self.records) + 1))
            self._rows_by_record = order, starts
        order, starts = self._rows_by_record
        record = self.records.record[row]
        for other in order[starts[record] : starts[record + 1]].tolist():
            at = self.rows.part_of(other)
            if not self.records.usable[other] or KINDS[what](self.rows.parts[at]) is None:
                continue
            for column in np.flatnonzero(self.columns[at] == model).tolist():
                if not np.isnan(self._value(what, other, column)):
                    return other, column
        raise AssertionError("a cell has a value that no row brought")


class _Mean:
    """Means of the values of each cell, in float64."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.total = np.zeros(shape)
        self.count = np.zeros(shape, dtype=np.int32)

    def add(
        self, cells: tuple[NDArray[np.int64], ...], values: Matrix, present: NDArray[np.bool_]
    ) -> None:
        self.total[cells] += values
        self.count[cells] += present

    def result(self) -> Matrix:
        empty = self.count == 0
        mean = self.total / np.where(empty, 1, self.count)
        mean[empty] = np.nan
        return mean.astype(np.float32)


def _layers(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of the keys, parted so that each key stands once in a part: first ones first."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[: len(keys)])
    if len(starts) == len(keys):
        return [np.arange(len(keys))]
    turn = np.empty(len(keys), dtype=np.int64)
    turn[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    return np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1])
