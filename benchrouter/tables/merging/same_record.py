"""Which rows of the parts are of one record, and what the record is called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.words import counted, shown
from benchrouter.tables.layouts.part import distinct, encode, join_codes, key_codes, strings
from benchrouter.tables.merging.all_rows import AllRows


@dataclass
class RecordNumbers:
    """RecordNumbers among the rows of all parts.

    Attributes
    ----------
    first : int64 array, shape (n_records,)
        First row of each record, ascending; it names the record.
    record : int64 array, shape (n_rows,)
        Record of each row.
    usable : bool array, shape (n_rows,)
        Rows whose values count.
    """

    first: NDArray[np.int64]
    record: NDArray[np.int64]
    usable: NDArray[np.bool_]

    def __len__(self) -> int:
        """Count the records."""
        return len(self.first)


def find_records(rows: AllRows, align: str) -> RecordNumbers:
    """Find the rows of each record.

    Parameters
    ----------
    rows : AllRows
    align : str
        "sample_id": equal dataset and sample_id; "prompt": equal dataset and text of the prompt.

    Returns
    -------
    RecordNumbers
        All rows usable.
    """
    usable = np.ones(len(rows), dtype=bool)
    if align == "prompt":
        codes = rows.prompt_codes
        dataset, _ = encode(rows.datasets)
        return RecordNumbers(*distinct(join_codes(dataset, codes, int(codes.max()) + 1)), usable)
    if len(rows.parts) == 1:
        each = np.arange(len(rows), dtype=np.int64)
        return RecordNumbers(each, each, usable)
    return RecordNumbers(*distinct(key_codes(rows.datasets, rows.sample_ids)), usable)


def compare_prompts(rows: AllRows, records: RecordNumbers, on_conflict: str) -> list[str]:
    """Take out rows with another prompt than their record's first row; or note them.

    Returns
    -------
    list of str
        With another `on_conflict` than "error", a note if there are such rows.

    Raises
    ------
    ValueError
        Shows both prompts, if the row's source is to raise.
    """
    if len(records) == len(rows):
        return []
    code = rows.prompt_codes
    first = records.first[records.record]
    others = np.flatnonzero(code != code[first])
    for row in others.tolist():
        earlier = int(first[row])
        mine, theirs = rows.prompts(np.array([row, earlier]))
        said = (
            f"{rows.place(row)}: prompt of {rows.key(row)} is {shown(mine)}, but {shown(theirs)} "
            f"in {rows.place(earlier)}"
        )
        if on_conflict != "error":
            more = f" (and {counted(len(others) - 1, 'more such row')})" if len(others) > 1 else ""
            return [f"{said}; the first prompt is kept{more}"]
        settled_by = (
            "'first' keeps the first (on_conflict, --on-conflict), 'prompt' makes each a record "
            "(align, --align)"
        )
        rows.leave_out(row, f"{said}; expected one: {settled_by}", len(others))
    records.usable[others] = False
    return []


def names_of(rows: AllRows, records: RecordNumbers, align: str) -> tuple[list[str], list[str]]:
    """Name the records by the sample_id of their first row.

    Returns
    -------
    sample_ids : list of str, length n_records
        Aligned by prompts, two sources may call different records of a dataset the same: the
        later one's sample_id then gets "#2" after it, or the next number that is free.
    notes : list of str
        One, if that was so.
    """
    import pyarrow as pa

    first = pa.array(records.first)
    datasets, ids = rows.datasets.take(first), rows.sample_ids.take(first)
    if align == "sample_id":
        return strings(ids), []
    earliest, number = distinct(key_codes(datasets, ids))
    names = strings(ids)
    if len(earliest) == len(names):
        return names, []
    codes = encode(datasets)[0].tolist()
    taken = set(zip(codes, names, strict=True))
    again = np.flatnonzero(earliest[number] != np.arange(len(names))).tolist()
    turns: dict[tuple[int, str], int] = {}
    for i in again:
        key = codes[i], names[i]
        turn = turns.get(key, 2)
        while (codes[i], f"{names[i]}#{turn}") in taken:
            turn += 1
        turns[key] = turn + 1
        names[i] = f"{names[i]}#{turn}"
        taken.add((codes[i], names[i]))
    return names, [
        f"{counted(len(again), 'record')} had the sample_id of another prompt of the dataset, and "
        f"got a number after it, such as {names[again[0]]!r}"
    ]


def source_rows(rows: AllRows, records: RecordNumbers, align: str) -> tuple[NDArray[np.int64], int]:
    """Position of each record before anything was skipped, and how many there were."""
    import pyarrow as pa

    parts = rows.parts
    if align == "prompt" or all(part.layout == "wide" for part in parts):
        starts = np.cumsum([0, *(p.n_positions for p in parts)])
        placed = [start + p.all_positions[p.kept] for start, p in zip(starts, parts, strict=False)]
        return np.concatenate(placed)[records.first], int(starts[-1])
    if len(parts) == 1:
        return parts[0].kept[records.first], parts[0].n_positions
    keys = key_codes(
        pa.concat_arrays([p.all_datasets for p in parts]),
        pa.concat_arrays([p.all_sample_ids for p in parts]),
    )
    whole = keys >= 0
    number = np.full(len(keys), -1, dtype=np.int64)
    firsts, number[whole] = distinct(keys[whole])
    starts = np.cumsum([0, *(len(p.all_datasets) for p in parts)])
    placed = [number[start + p.kept] for start, p in zip(starts, parts, strict=False)]
    return np.concatenate(placed)[records.first], len(firsts)
