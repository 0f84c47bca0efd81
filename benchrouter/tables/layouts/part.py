"""What one source gives to a table, before sources are merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.layouts.sidecar import Sidecar

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Part:
    """Records of one source.

    The arrays ``all_*`` describe every record that the source names, also those left out.

    Attributes
    ----------
    name : str
        What messages call the source.
    layout : str
        "wide" or "long".
    sidecar : Sidecar
        What lay beside the source.
    on_error : str
        "raise" or "skip".
    models : list of str
        Columns of `scores`.
    known_models : list of str
        Models of the source, also those not asked for.
    all_datasets, all_sample_ids : large string arrays, length n_all
        Keys; null where a row has none.
    all_positions : int64 array, shape (n_all,)
        Wide: data row of the record; long: its number among the distinct keys.
    n_positions : int
        Wide: data rows of the source; long: distinct keys.
    kept : int64 array, shape (n_records,)
        Records that can be used, ascending numbers into the arrays ``all_*``.
    prompts : large string array, length n_records
    scores : float32 array, shape (n_records, n_models)
        NaN = missing.
    cost_usd, log_likelihood : float32 array of the same shape, or None
    place : callable
        (record of this part, model of this part or None) to where it was read.
    skipped : list of str
        What was left out.
    duplicates : counter of (str, str)
        Scores of a (dataset, model) left out because an earlier row has them.
    read_as : list of str
        What the source calls each of `models`, where that may differ; else empty.
    notes : tuple of str
        What the reader chose or left out.
    lacks : tuple of str or None
        Metrics that are there, where the one that was asked for is not; else None.
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
    """Tell distinct keys apart in order of first appearance.

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
    # NumPy keeps the last of repeated assignments, here the first appearance.
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
    """Write one key for a message."""
    return f"(dataset {datasets[row].as_py()!r}, sample_id {sample_ids[row].as_py()!r})"
