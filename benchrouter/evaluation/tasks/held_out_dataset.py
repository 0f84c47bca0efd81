"""One held-out dataset: predictions and truth in each of its distinct cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array, Counts
from benchrouter.scores.cells import cells_of, distinct, moves_of
from benchrouter.scores.evidence import Evidence
from benchrouter.scores.fitted import Settings
from benchrouter.scores.held_out import HeldOut


@dataclass(frozen=True)
class HeldOutDataset:
    """The distinct cells (C) of one held-out dataset; cell 0 moves no record.

    Attributes
    ----------
    code : int
        The dataset.
    which : int64 array, shape (n_shares, n_draws)
        The cell of every label share and draw.
    n_labels : int64 array, shape (n_shares,)
        Records moved.
    u : float64 array, shape (C, n_exclusions)
        Exclusion 0 leaves out this dataset only, exclusion 1 + e dataset e too.
    p : float64 array, shape (C, n_exclusions, n_models)
    s1, s2 : float64 arrays, shape (C, n_models)
        With exclusion 0.
    accuracy : float64 array, shape (C, n_models)
        On the remaining records; NaN = not run.
    some_correct : float64 array, shape (C,)
        Share of the remaining records that some model gets right; NaN = none was run.
    log_likelihood : float64 array, shape (C, n_models), or None
        Mean over the remaining records.
    """

    code: int
    which: Counts
    n_labels: Counts
    u: Array
    p: Array
    s1: Array
    s2: Array
    accuracy: Array
    some_correct: Array
    log_likelihood: Array | None

    @property
    def own_u(self) -> Array:
        """The distance with only this dataset left out; shape (C,)."""
        return self.u[:, 0]

    @property
    def own_p(self) -> Array:
        """P with only this dataset left out; shape (C, n_models)."""
        return self.p[:, 0]

    def lacks_likelihood(self) -> bool:
        """Whether some model was run, in some cell, without a log-likelihood."""
        if self.log_likelihood is None:
            return True
        return bool((np.isnan(self.log_likelihood) & ~np.isnan(self.accuracy)).any())


def part_of(
    held_out: HeldOut,
    evidence: Evidence,
    settings: Settings,
    log_likelihood: NDArray[np.float32] | None,
) -> HeldOutDataset:
    """Predict a held-out dataset in all its cells, and look up the truth.

    Parameters
    ----------
    held_out : HeldOut
    evidence : Evidence
    settings : Settings
    log_likelihood : float32 array, shape (n_records, n_models), or None
        NaN = unknown.
    """
    moves = moves_of(
        len(held_out.rows), held_out.code, settings.label_shares, settings.draws, settings.seed
    )
    moved, which = distinct(moves)
    everything = np.flatnonzero(evidence.dataset == held_out.code)  # rows may be a sample of it
    records = [held_out.rows[places] for places in moved]
    correctness = evidence.correctness
    known = ~np.isnan(correctness[everything]).all(axis=1)
    some = np.full((len(correctness), 1), np.nan, dtype=np.float32)
    some[everything[known], 0] = (correctness[everything[known]] == 1).any(axis=1)
    predicted = cells_of(held_out, evidence, moved, each=True)
    return HeldOutDataset(
        code=held_out.code,
        which=which,
        n_labels=np.array([chosen.shape[1] for chosen in moves]),
        u=predicted.u,
        p=predicted.p,
        s1=predicted.s1[:, 0].copy(),  # a view would keep an array D + 1 times as large
        s2=predicted.s2[:, 0].copy(),
        accuracy=_means_of_the_rest(correctness, everything, records),
        some_correct=_means_of_the_rest(some, everything, records)[:, 0],
        log_likelihood=None
        if log_likelihood is None
        else _means_of_the_rest(log_likelihood, everything, records),
    )


def _means_of_the_rest(
    values: NDArray[np.float32], everything: Counts, moved: list[Counts]
) -> Array:
    """Mean of each column over the records that a cell does not move; NaN where none is known."""

    def sums(records: Counts) -> tuple[Array, Counts]:
        some = values[records].astype(np.float64)
        known = ~np.isnan(some)
        return np.where(known, some, 0.0).sum(axis=0), known.sum(axis=0)

    total, count = sums(everything)
    found = np.empty((len(moved), values.shape[1]))
    for cell, records in enumerate(moved):
        less, fewer = sums(records)
        rest = count - fewer
        found[cell] = (total - less) / np.where(rest > 0, rest, np.nan)
    return found
