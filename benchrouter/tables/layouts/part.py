"""The records of one source, before sources are merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Ids
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.bad_rows import BadRows

if TYPE_CHECKING:
    import pyarrow as pa

# What cells must hold, for messages.
TEXT = "text that is not blank"
NUMBER = "a finite number or nothing"


@dataclass
class Part:
    """Records of one source.

    The arrays ``all_*`` also describe the records that were left out.

    Attributes
    ----------
    name : str
        The source, for messages.
    layout : str
        "wide" or "long".
    sidecar : Sidecar
        The source's.
    on_error : str
        "raise" or "skip".
    models : list of str
        Columns of `scores`.
    known_models : list of str
        All models of the source, even if not asked for.
    all_datasets, all_sample_ids : large string arrays, length n_all
        Keys; null where missing.
    all_positions : int64 array, shape (n_all,)
        Wide: data row of the record; long: number of its key.
    n_positions : int
        Wide: number of data rows; long: of distinct keys.
    kept : int64 array, shape (n_records,)
        The usable records as ascending indices into the arrays ``all_*``.
    prompts : large string array, length n_records
    scores : float32 array, shape (n_records, n_models)
        NaN = missing.
    cost_usd, log_likelihood : float32 array of the same shape, or None
    place : callable
        Maps (record, model or None) of this part to where it was read.
    skipped : list of str
        Messages for what was left out.
    duplicates : counter of (str, str)
        Number of scores of a (dataset, model) left out as duplicates.
    read_as : list of str
        Names of `models` in the source, if they may differ; else empty.
    notes : tuple of str
        What the reader chose or left out.
    lacks : tuple of str or None
        The metrics there are, if the one asked for is missing; else None.
    format, passed_over, guessed
        As in `SourceRead`.
    """

    name: str
    layout: str
    sidecar: Sidecar
    on_error: str
    models: list[str]
    known_models: list[str]
    all_datasets: pa.LargeStringArray
    all_sample_ids: pa.LargeStringArray
    all_positions: NDArray[np.int64]
    n_positions: int
    kept: NDArray[np.int64]
    prompts: pa.LargeStringArray
    scores: NDArray[np.float32]
    cost_usd: NDArray[np.float32] | None
    log_likelihood: NDArray[np.float32] | None
    place: Callable[[int, int | None], str]
    skipped: list[str] = field(default_factory=list)
    duplicates: Counter[tuple[str, str]] = field(default_factory=Counter)
    read_as: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    lacks: tuple[str, ...] | None = None
    format: str = "table"
    passed_over: tuple[str, ...] = ()
    guessed: bool = False

    @property
    def n_records(self) -> int:
        """Records that can be used."""
        return len(self.kept)


def encode(values: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Return each value's number in order of first appearance (−1 for null), and the values."""
    encoded = values.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64, copy=False), encoded.dictionary


def distinct(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number distinct keys in order of first appearance.

    Parameters
    ----------
    keys : int64 array, shape (n,)

    Returns
    -------
    first : int64 array, shape (n_distinct,)
        Where each distinct key appears first, ascending.
    number : int64 array, shape (n,)
        Number of each key.
    """
    import pyarrow as pa

    number, values = encode(pa.array(keys))
    first = np.empty(len(values), dtype=np.int64)
    # The last of repeated assignments wins, here the first appearance.
    first[number[::-1]] = np.arange(len(keys) - 1, -1, -1, dtype=np.int64)
    return first, number


def key_codes(datasets: pa.Array, sample_ids: pa.Array) -> NDArray[np.int64]:
    """One number per (dataset, sample_id); −1 where either is null."""
    dataset_codes, _ = encode(datasets)
    sample_codes, names = encode(sample_ids)
    return join_codes(dataset_codes, sample_codes, len(names))


def join_codes(
    dataset: NDArray[np.int64], sample_id: NDArray[np.int64], n_sample_ids: int
) -> NDArray[np.int64]:
    """One number per pair of numbers; −1 where either is −1."""
    keys = dataset * n_sample_ids + sample_id
    keys[(dataset < 0) | (sample_id < 0)] = -1
    return keys


def strings(values: pa.Array) -> list[str]:
    """Texts as Python's; four times as fast as ``to_pylist``."""
    texts: list[str] = values.to_numpy(zero_copy_only=False).tolist()
    return texts


def key_shown(datasets: pa.Array, sample_ids: pa.Array, row: int) -> str:
    """Format one key for a message."""
    return f"(dataset {datasets[row].as_py()!r}, sample_id {sample_ids[row].as_py()!r})"


def mark_duplicates(keys: Ids, shown: Callable[[int], str], bad: BadRows) -> Ids:
    """Take out rows whose key an earlier row has.

    Parameters
    ----------
    keys : int64 array, shape (n_rows,)
    shown : callable
        Row number to its key, for messages.
    bad : BadRows

    Returns
    -------
    int64 array
        The rows taken out.
    """
    kept = np.flatnonzero(bad.keep)
    # Counting dense keys is a hundred times as fast as telling them apart.
    dense = keys.max(initial=0) < 4 * len(keys)
    if dense and np.bincount(keys[kept]).max(initial=0) <= 1:
        return np.empty(0, dtype=np.int64)
    first, number = distinct(keys[kept])
    if len(first) == len(kept):
        return np.empty(0, dtype=np.int64)
    rows = np.arange(len(keys))
    earlier = rows.copy()
    earlier[kept] = kept[first[number]]
    positions = bad.source.positions
    bad.add(
        earlier != rows,
        lambda row: (
            f"duplicate {shown(row)}, found before in row {int(positions[earlier[row]]) + 1}"
        ),
    )
    return np.flatnonzero(earlier != rows)
