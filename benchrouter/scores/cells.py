"""Cells of a held-out dataset: label shares × draws, and each with one dataset more left out.

In a cell some records of the held-out dataset are moved into the pool, and the others are
predicted. A cell needs no search: each record's list of neighbours outside the dataset (see
:mod:`benchrouter.scores.pairs`) is merged with those of the dataset's own records that were moved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.files.arrays import Array, Ids
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.evidence import Evidence, prior_without, verdicts

if TYPE_CHECKING:
    from benchrouter.scores.held_out import HeldOut

MOST_LABELS = 50  # records moved in at most, arXiv 2309.15789, sec. 5
BLOCK_BYTES = 64 << 20  # of a block's lists inside the dataset


@dataclass(frozen=True)
class Cells:
    """Scores of a held-out dataset in every cell, for every exclusion.

    Exclusion 0 leaves out the held-out dataset only. Where each dataset was left out in turn,
    exclusion 1 + e leaves out dataset e too, and 1 + its own code is exclusion 0 once more.

    Attributes
    ----------
    u : float64 array, shape (n_cells, n_exclusions)
        Task distances; NaN where no record is left to be near to.
    s1, s2, p : float64 arrays, shape (n_cells, n_exclusions, n_models)
        Of the records not moved; p is the accuracy of the predictor, NaN for a model that ran on
        none of them. All are NaN where u is.
    """

    u: Array
    s1: Array
    s2: Array
    p: Array


def moves_of(
    n_records: int, code: int, label_shares: Sequence[float], draws: int, seed: int
) -> list[Ids]:
    """Choose the records that are moved into the pool.

    Parameters
    ----------
    n_records : int
        Of the held-out dataset.
    code : int
        The dataset.
    label_shares : sequence of float
        α, in [0, 1).
    draws : int
        Random choices per share.
    seed : int

    Returns
    -------
    list of int64 array, shape (draws, n_moved)
        Places in the dataset, one array per label share; n_moved = ⌊α·n_records⌋, at most 50.
    """
    moves = []
    for i, share in enumerate(label_shares):
        n_moved = min(math.floor(share * n_records + 1e-9), MOST_LABELS)
        rng = np.random.default_rng([seed, code, i])
        chosen = [
            rng.choice(n_records, n_moved, replace=False) if n_moved else () for _ in range(draws)
        ]
        moves.append(np.array(chosen, dtype=np.int64).reshape(draws, n_moved))
    return moves


def distinct(moves: Sequence[Ids]) -> tuple[list[Ids], NDArray[np.int64]]:
    """Cells that must be computed: all choices of no record are one.

    Parameters
    ----------
    moves : sequence of int64 array, shape (draws, n_moved)
        As :func:`moves_of` gives them.

    Returns
    -------
    cells : list of int64 array
        The records that each distinct cell moves; the first cell moves none.
    which : int64 array, shape (n_shares, draws)
        The cell of every share and draw.
    """
    cells = [np.empty(0, np.int64)]
    which = np.zeros((len(moves), len(moves[0]) if len(moves) else 0), np.int64)
    for i, chosen in enumerate(moves):
        if chosen.shape[1]:
            which[i] = np.arange(len(cells), len(cells) + len(chosen))
            cells += list(chosen)
    return cells, which


def cells_of(
    held_out: HeldOut, evidence: Evidence, moved: Sequence[Ids], *, each: bool = False
) -> Cells:
    """Predict a held-out dataset in every cell.

    Parameters
    ----------
    held_out : HeldOut
    evidence : Evidence
    moved : sequence of int64 array
        Places, in ``held_out.rows``, of the records that each cell moves into the pool; at least
        one record must stay in every cell.
    each : bool
        Leave out each dataset in turn, too.

    Returns
    -------
    Cells
        The same for any number of threads.
    """
    rows, code = held_out.rows, held_out.code
    n_cells, n_models = len(moved), evidence.means.shape[1]
    n_exclusions = 1 + evidence.n_datasets if each else 1
    shape = (n_cells, n_exclusions, n_models)
    distance = np.zeros(shape[:2], np.int64)
    s1 = np.zeros(shape)
    s2, right, unsupported, of_known, of_correct = (np.zeros(shape, np.int32) for _ in range(5))
    offsets, cell = _cells_of_places(moved, len(rows))
    for first, ids, similarities, own in _blocks(
        held_out, evidence, np.flatnonzero(offsets[1:] - offsets[:-1])
    ):
        _core.cells(
            ids=ids, similarities=similarities, own_places=own.ids,
            own_similarities=own.similarities, first=first, records=rows, offsets=offsets,
            cells=cell, n_cells=n_cells, correctness=evidence.correctness,
            dataset=evidence.dataset, n_datasets=evidence.n_datasets, k=evidence.k,
            kappa=evidence.kappa, threshold=evidence.threshold, each=each,
            threads=evidence.threads,
            out=(distance, s1, s2, right, unsupported, of_known, of_correct),
        )  # fmt: skip
    n_moved = np.array([len(places) for places in moved])
    rest = (len(rows) - n_moved)[:, None]
    u = distance / (_core.distance_unit * rest)
    if unsupported.any():
        prior = _priors(evidence, code, each)
        verdict = verdicts(prior, evidence.threshold)
        s1 += unsupported * prior.astype(np.float64)
        s2 += unsupported * verdict
        right += np.where(verdict, of_correct, of_known - of_correct)
    recorded = ~np.isnan(evidence.correctness[rows])
    known = np.array([recorded.sum(axis=0) - recorded[places].sum(axis=0) for places in moved])
    p = right / np.where(known > 0, known, np.nan)[:, None, :]
    found = Cells(u, s1 / rest[:, :, None], s2 / rest[:, :, None], p)
    if each and evidence.n_datasets == 2:
        nothing = 1 + (1 - code)
        for values in (found.u, found.s1, found.s2, found.p):
            values[:, nothing] = np.nan
    return found


def _cells_of_places(moved: Sequence[Ids], n_places: int) -> tuple[Ids, NDArray[np.int32]]:
    """Offsets per place, and the cells in which that place is moved."""
    places = np.concatenate([*moved, np.empty(0, np.int64)])
    cell = np.repeat(np.arange(len(moved), dtype=np.int32), [len(chosen) for chosen in moved])
    offsets = np.zeros(n_places + 1, np.int64)
    np.cumsum(np.bincount(places, minlength=n_places), out=offsets[1:])
    return offsets, cell[np.argsort(places, kind="stable")]


def _blocks(
    held_out: HeldOut, evidence: Evidence, movable: Ids
) -> Iterator[tuple[int, Ids, NDArray[np.float32], Neighbours]]:
    """Queries in blocks: the first's place, neighbours elsewhere, and among the movable records.

    Movable records farther than any neighbour kept of other datasets can never be needed.
    """
    ids, similarities = held_out.neighbours
    rows, embeddings = held_out.rows, evidence.index.embeddings
    labelled = np.ascontiguousarray(embeddings[rows[movable]])
    place_of = np.zeros(len(embeddings), np.int64)
    place_of[rows] = np.arange(len(rows))
    error = 1.01 * (evidence.index.dim + 4) * 2.0**-24  # of a float32 product of unit rows
    step = max(1, BLOCK_BYTES // (24 * max(len(movable), 1)))
    for start in range(0, len(rows), step):
        some = slice(start, min(start + step, len(rows)))
        queries = np.ascontiguousarray(embeddings[rows[some]])
        floor = similarities[some, -1:] - np.float32(error)
        near = queries @ labelled.T >= floor
        near &= movable != np.arange(some.start, some.stop)[:, None]
        # Ranked by record number where equally similar, as everywhere; places ascend with them.
        candidates = np.where(near, rows[movable], -1)
        width = int(near.sum(axis=1).max(initial=0))
        found, own = _core.rank(queries, embeddings, candidates, width, evidence.threads)
        places = np.where(found >= 0, place_of[found], -1)
        yield (
            start,
            np.ascontiguousarray(ids[some]),
            np.ascontiguousarray(similarities[some]),
            Neighbours(places, own),
        )


def _priors(evidence: Evidence, code: int, each: bool) -> NDArray[np.float32]:
    """Prior vote of every model in every exclusion, shape (n_exclusions, n_models)."""
    others = range(evidence.n_datasets) if each else ()
    return np.array(
        [prior_without(evidence, code), *(prior_without(evidence, code, e) for e in others)]
    )
