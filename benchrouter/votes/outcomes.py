"""Outcomes: which models were correct on which records, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Bits, Floats, Ids


@dataclass(frozen=True, eq=False)
class PackedOutcomes:
    """0/1 correctness of models on records, one bit each, 64 models to a word.

    Attributes
    ----------
    bits : uint64 array, shape (n_records, ceil(n_models / 64))
        Bit ``m % 64`` of word ``m // 64`` = model m was correct.
    present : uint64 array of the same shape, or None
        Bit set = the model was run on the record; None = nothing is missing.
    n_models : int
        Number of models.
    """

    bits: Bits
    present: Bits | None
    n_models: int


Outcomes: TypeAlias = PackedOutcomes | Floats


class Votes(NamedTuple):
    """What the neighbours say of every model."""

    votes: Floats
    """float32, shape (n_queries, n_models): mean outcome of the voting neighbours."""
    support: NDArray[np.uint16]
    """uint16, same shape: voting neighbours on which the model was run."""


class Chosen(NamedTuple):
    """One decision per query."""

    model: NDArray[np.int32]
    """int32, shape (n_queries,): column of the chosen model."""
    score: Floats
    """float32: its score; NaN under rule "s3" where there is no neighbour."""
    margin: Floats
    """float32: its score minus the best other model's; 0 with one model, may be below 0 on
    fallback."""
    distance: Floats
    """float32: mean cosine distance to the first kappa neighbours, in [1e-7, 2]; NaN = none."""
    fallback: NDArray[np.bool_]
    """bool: whether the fallback model was taken for want of support or of near neighbours."""


class TaskScores(NamedTuple):
    """S1 and S2 of every model on every task (arXiv 2309.15789, eq. 3 and 4)."""

    s1: NDArray[np.float64]
    """float64, shape (n_tasks, n_models): mean vote of the task's queries; NaN without queries."""
    s2: NDArray[np.float64]
    """float64, same shape: share of its queries whose vote is above the threshold."""
    support: NDArray[np.int64]
    """int64, same shape: queries of the task with at least one present vote."""


def pack(correctness: Floats) -> PackedOutcomes:
    """Pack 0/1 correctness into bits.

    Parameters
    ----------
    correctness : float32 array, shape (n_records, n_models)
        1 = correct, 0 = wrong, NaN = not run.

    Returns
    -------
    PackedOutcomes
        With ``present=None`` where nothing is missing.

    Raises
    ------
    TypeError
        If it is not a float32 array.
    ValueError
        If it has not two dimensions, or holds anything but 0, 1 and NaN.
    """
    if not isinstance(correctness, np.ndarray) or correctness.dtype != np.float32:
        found = getattr(correctness, "dtype", type(correctness).__name__)
        raise TypeError(f"correctness must be a float32 array, got {found}")
    if correctness.ndim != 2:
        raise ValueError(f"correctness must have 2 dimensions, got shape {correctness.shape}")
    correct = correctness == 1
    missing = np.isnan(correctness)
    wrong = ~(correct | missing | (correctness == 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"correctness must be 0, 1 or NaN, got {correctness[row, column]} at [{row}, {column}]"
        )
    present = _words(~missing) if missing.any() else None
    return PackedOutcomes(_words(correct), present, correctness.shape[1])


def unpack(outcomes: Outcomes, records: Ids) -> Floats:
    """Outcomes of some records, unpacked.

    Parameters
    ----------
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        As :func:`votes` takes them.
    records : int64 array, shape (n,)
        Record numbers, at least 0.

    Returns
    -------
    float32 array, shape (n, n_models)
        NaN = not run.

    Raises
    ------
    IndexError
        If a record number is out of range.
    """
    if not isinstance(outcomes, PackedOutcomes):
        return outcomes[records]
    correct = _flags(outcomes.bits[records], outcomes.n_models).astype(np.float32)
    if outcomes.present is not None:
        correct[~_flags(outcomes.present[records], outcomes.n_models)] = np.nan
    return correct


def _words(flags: NDArray[np.bool_]) -> Bits:
    n_rows, n_columns = flags.shape
    n_words = -(-n_columns // 64)
    packed = np.zeros((n_rows, 8 * n_words), np.uint8)
    packed[:, : -(-n_columns // 8)] = np.packbits(flags, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64, copy=False)


def _flags(words: Bits, n_columns: int) -> NDArray[np.bool_]:
    packed = words.astype("<u8").view(np.uint8)
    flags = np.unpackbits(packed, axis=1, count=n_columns, bitorder="little")
    return flags.astype(np.bool_)
