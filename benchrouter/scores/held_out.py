"""Datasets held out: what remains of the benchmark when the records of one are taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Progress
from benchrouter.neighbours.lists import Neighbours, merge, without_dropped
from benchrouter.scores.evidence import Evidence

ALL_RECORDS = 100_000  # up to here every record is held out, above it a sample
SAMPLE = 500  # records per dataset in that sample
MOST_VOTERS = 32  # neighbours that the rule `auto` may ask for, outside any one dataset
SAME_PROMPT = np.float32(1.0 - 1e-6)  # a record of at least this similarity is the prompt itself


@dataclass(frozen=True)
class HeldOut:
    """One dataset held out: its records and their neighbours in the other datasets.

    Attributes
    ----------
    code : int
        The dataset.
    rows : int64 array, shape (n,)
        Its records (a seeded sample of them in a large benchmark).
    neighbours : Neighbours
        Arrays of shape (n, 2·depth): enough to leave out any one dataset more.
    alone, apart : Neighbours
        Nearest records of any dataset but the record itself and those with its prompt, and of the
        other datasets alone; arrays of shape (n, 2·max(32, kappa)), enough for the same.
    """

    code: int
    rows: NDArray[np.int64]
    neighbours: Neighbours
    alone: Neighbours
    apart: Neighbours


def hold_out(
    evidence: Evidence, *, seed: int = 0, progress: Progress | None = None
) -> Iterator[HeldOut]:
    """Hold out every dataset in turn and find its records' neighbours in the others.

    Parameters
    ----------
    evidence : Evidence
    seed : int
        Draws the records that stand for their dataset above 100,000 records.
    progress : callable, optional
        Called with (stage, done, total).

    Yields
    ------
    HeldOut
        In the order of the dataset codes.
    """
    n_datasets = evidence.n_datasets
    for code in range(n_datasets):
        rows = sample_of(evidence.dataset, code, seed)
        width = max(MOST_VOTERS, evidence.depth)
        lists = evidence.index.search_per_dataset(
            np.ascontiguousarray(evidence.index.embeddings[rows]),
            width + 1,  # the record itself is one of its own dataset's
            evidence.dataset,
            n_datasets,
            keep=3 * (width + 1),  # its own dataset and one more may be left out
        )
        own = np.arange(n_datasets) == code
        nearest = np.s_[:, :, : evidence.depth]
        short = Neighbours(lists.ids[nearest], lists.similarities[nearest])
        both = [merge(lists, excluded, 2 * width + 1) for excluded in (np.zeros_like(own), own)]
        alone, apart = (without_prompt(found, rows, 2 * width) for found in both)
        yield HeldOut(code, rows, merge(short, own, 2 * evidence.depth), alone, apart)
        if progress is not None:
            progress("holding out each dataset", code + 1, n_datasets)


def sample_of(dataset: NDArray[np.int32], code: int, seed: int) -> NDArray[np.int64]:
    """Records that stand for a dataset: all of them, or in a large benchmark a seeded sample.

    Parameters
    ----------
    dataset : int32 array, shape (n_records,)
        Dataset of every record.
    code : int
        The dataset asked for.
    seed : int

    Returns
    -------
    int64 array, shape (n,)
        Ascending; at most 500 above 100,000 records.
    """
    rows = np.flatnonzero(dataset == code)
    if len(dataset) > ALL_RECORDS and len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng([seed, code]).choice(rows, SAMPLE, replace=False))
    return rows


def without(held_out: HeldOut, evidence: Evidence, code: int | None = None) -> Neighbours:
    """Nearest neighbours outside the held-out dataset, and outside one more where given.

    Parameters
    ----------
    held_out : HeldOut
    evidence : Evidence
    code : int, optional
        A second dataset to leave out.

    Returns
    -------
    Neighbours
        Arrays of shape (n, depth).
    """
    neighbours = held_out.neighbours
    dropped = np.zeros(neighbours.ids.shape, np.bool_)
    if code is not None:
        dropped = evidence.dataset[neighbours.ids] == code
    return without_dropped(neighbours, dropped, evidence.depth)


def without_prompt(found: Neighbours, rows: NDArray[np.int64], width: int) -> Neighbours:
    """Leave out the rows themselves, and records with the same prompt.

    Parameters
    ----------
    found : Neighbours
        Of the rows; arrays of shape (n, any).
    rows : int64 array, shape (n,)
        Record numbers.
    width : int
        Neighbours wanted.

    Returns
    -------
    Neighbours
        Arrays of shape (n, width).
    """
    same = (found.ids == rows[:, None]) | (found.similarities >= SAME_PROMPT)
    return without_dropped(found, same, width)


def without_dataset(held_out: HeldOut, dataset: NDArray[np.int32], code: int) -> HeldOut:
    """A held-out dataset whose records' neighbours are in a benchmark without one dataset more.

    Parameters
    ----------
    held_out : HeldOut
    dataset : int32 array, shape (n_records,)
        Dataset of every record.
    code : int
        The dataset to leave out.

    Returns
    -------
    HeldOut
        Its `alone` and `apart` are half as wide; `neighbours` are as they were.
    """
    alone, apart = (
        without_dropped(found, dataset[found.ids] == code, found.ids.shape[1] // 2)
        for found in (held_out.alone, held_out.apart)
    )
    return replace(held_out, alone=alone, apart=apart)
