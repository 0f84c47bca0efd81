"""What holding out each benchmark dataset teaches: p, u and the smoother's training pairs.

Every record keeps one short list of neighbours outside its own dataset. Leaving out one dataset
more, or moving a few labelled records in, is then a merge of short lists, never a new search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.scores.cells import cells_of, distinct, moves_of
from benchrouter.scores.evidence import Evidence
from benchrouter.scores.held_out import HeldOut

LABEL_SHARES = tuple(round(0.02 * i, 2) for i in range(15))  # arXiv 2309.15789, sec. 5
DRAWS = 10  # per label share, arXiv 2309.15789, sec. 5


@dataclass(frozen=True)
class Pairs:
    """Training pairs z = (u_z, p_z) of the smoother.

    Attributes
    ----------
    u : float64 array, shape (n_pairs,)
        Task distances.
    p : float64 array, shape (n_pairs, n_models)
        Accuracy of the predictor, NaN = the model did not run there.
    dataset : int32 array, shape (n_pairs,)
        The dataset that was held out.
    share : float64 array, shape (n_pairs,)
        Label share α.
    """

    u: Array
    p: Array
    dataset: NDArray[np.int32]
    share: Array


def pairs_of(
    held_out: HeldOut,
    evidence: Evidence,
    *,
    label_shares: tuple[float, ...] = LABEL_SHARES,
    draws: int = DRAWS,
    seed: int = 0,
) -> Pairs:
    """Training pairs of one held-out dataset, at every label share and draw.

    Parameters
    ----------
    held_out : HeldOut
    evidence : Evidence
    label_shares : tuple of float
        α: the shares of the dataset's records that are moved into the pool (at most 50 records).
    draws : int
        Random choices of those records per share. Choices of no record are kept, not
        deduplicated, but computed once.
    seed : int

    Returns
    -------
    Pairs
        len(label_shares)·draws of them.
    """
    moves = moves_of(len(held_out.rows), held_out.code, label_shares, draws, seed)
    moved, which = distinct(moves)
    cells = cells_of(held_out, evidence, moved)
    which = which.ravel()
    return Pairs(
        cells.u[which, 0],
        cells.p[which, 0],
        np.full(len(which), held_out.code, dtype=np.int32),
        np.repeat(np.array(label_shares, dtype=np.float64), draws),
    )


def concatenate(parts: list[Pairs], n_models: int) -> Pairs:
    """Join the pairs of several held-out datasets.

    Parameters
    ----------
    parts : list of Pairs
    n_models : int
        Shape of the result where there are none.
    """
    if not parts:
        empty = np.empty(0)
        return Pairs(empty, np.empty((0, n_models)), np.empty(0, np.int32), empty)
    return Pairs(
        np.concatenate([part.u for part in parts]),
        np.concatenate([part.p for part in parts]),
        np.concatenate([part.dataset for part in parts]),
        np.concatenate([part.share for part in parts]),
    )
