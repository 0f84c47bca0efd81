"""What the prompts of tasks add up to: all that a decision on a task without labels needs.

The sums of many tasks are gathered from prompts in any order and in any number of parts, and take
memory for tasks, not for prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array, Counts
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.fitted import Fit
from benchrouter.scores.neighbourhood import mean_of_views
from benchrouter.votes.votes import task_scores

# Sums differ in their last bits with the order of the prompts. Rounded, they do not: equal models
# stay equal, and the cheaper one is chosen.
DECIMALS = 12

SIGNS = 256  # of every prompt, in the sketch of repeated prompts
NOT_SEEN = 1.0 + 4.0 * (2.0 / SIGNS) ** 0.5  # Σc²/n up to which prompts count as different: 4 sd


class TaskSums(NamedTuple):
    """Sums over the prompts of T tasks, for M models and D datasets of the benchmark."""

    n_prompts: Counts
    """int64, shape (T,)."""
    near: Array
    """float64, shape (T, M): votes of the k nearest records."""
    wide: Array
    """float64, shape (T, M): votes of the kappa nearest."""
    above: Counts
    """int64, shape (T, M): prompts whose vote of the k nearest is above the threshold."""
    support: Counts
    """int64, shape (T, M): prompts with at least one such vote."""
    datasets: Counts
    """int64, shape (T, D): records of each dataset among the kappa nearest."""
    distance: Array
    """float64, shape (T,): distances of the prompts."""
    signs: Counts
    """int64, shape (T, 256): random signs of the prompts, equal ones for equal prompts."""


@dataclass(frozen=True)
class TaskEvidence:
    """What the benchmark says of one task, of which no prompt is labelled; M models.

    Attributes
    ----------
    n_prompts : int
    s1, s2 : float64 arrays, shape (M,)
    support : int64 array, shape (M,)
        Prompts with at least one neighbour on which the model was run.
    local : float64 array, shape (M,)
        As :func:`benchrouter.scores.neighbourhood.local_accuracy` gives it.
    distance : float
        u of the task.
    n_effective : float
        Prompts, those that repeat counted as :func:`effective_number` does.
    """

    n_prompts: int
    s1: Array
    s2: Array
    support: Counts
    local: Array
    distance: float
    n_effective: float


def no_sums(fit: Fit, n_tasks: int) -> TaskSums:
    """TaskSums of tasks without any prompt."""
    models, datasets = (n_tasks, len(fit.models)), (n_tasks, len(fit.datasets))
    return TaskSums(
        np.zeros(n_tasks, np.int64),
        np.zeros(models),
        np.zeros(models),
        np.zeros(models, np.int64),
        np.zeros(models, np.int64),
        np.zeros(datasets, np.int64),
        np.zeros(n_tasks),
        np.zeros((n_tasks, SIGNS), np.int64),
    )


def sums_of_tasks(
    fit: Fit,
    neighbours: Neighbours,
    offsets: Counts,
    embeddings: NDArray[np.float32],
    *,
    threads: int = 0,
) -> TaskSums:
    """Add up what the neighbours of prompts say, task by task.

    Parameters
    ----------
    fit : Fit
        With correctness.
    neighbours : Neighbours
        Arrays of shape (n_prompts, at least max(k, kappa)); the prompts of a task follow each
        other.
    offsets : int64 array, shape (n_tasks + 1,)
        Strictly ascending from 0 to n_prompts: task i is the prompts ``offsets[i]:offsets[i + 1]``.
    embeddings : float32 array, shape (n_prompts, dim)
        Of the prompts, in this order.
    threads : int
        0 = all.
    """
    assert fit.correct is not None
    settings = fit.settings
    ids = np.ascontiguousarray(neighbours.ids)
    n_prompts = np.diff(offsets)
    near, wide = (
        task_scores(
            ids,
            fit.correct,
            offsets,
            prior=fit.prior,
            k=count,
            threshold=settings.threshold,
            threads=threads,
        )
        for count in (settings.k, settings.kappa)
    )
    each = n_prompts[:, None]
    distances = formulas.prompt_distances(neighbours.similarities[:, : settings.kappa])
    return TaskSums(
        n_prompts,
        near.s1 * each,
        wide.s1 * each,
        np.rint(near.s2 * each).astype(np.int64),
        near.support,
        _datasets(fit, ids[:, : settings.kappa], n_prompts),
        np.add.reduceat(distances, offsets[:-1]),
        np.add.reduceat(_signs(embeddings), offsets[:-1], dtype=np.int64),
    )


def _datasets(fit: Fit, nearest: Counts, n_prompts: Counts) -> Counts:
    n_tasks, n_datasets = len(n_prompts), len(fit.datasets)
    task = np.repeat(np.arange(n_tasks), n_prompts)
    cell = task[:, None] * n_datasets + fit.dataset[nearest]
    counts = np.bincount(cell[nearest >= 0], minlength=n_tasks * n_datasets)
    return counts.reshape(n_tasks, n_datasets)


def _signs(embeddings: NDArray[np.float32]) -> NDArray[np.int8]:
    """256 signs for every prompt, by a hash of its embedding."""
    rng = np.random.default_rng(0)
    factors = rng.integers(2**63, 2**64, embeddings.shape[1], dtype=np.uint64) | np.uint64(1)
    words = np.ascontiguousarray(embeddings).view(np.uint32)
    mixed = (words * factors).sum(axis=1, dtype=np.uint64)[:, None]
    mixed = mixed + rng.integers(2**63, 2**64, SIGNS // 64, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    bits = np.unpackbits(mixed.view(np.uint8).reshape(len(mixed), -1), axis=1)
    return np.asarray(2 * bits.astype(np.int8) - 1)


def distinct(embeddings: NDArray[np.float32]) -> Counts:
    """Number the distinct prompts.

    Parameters
    ----------
    embeddings : float32 array, shape (n_prompts, dim)

    Returns
    -------
    int64 array, shape (n_prompts,)
        Equal for prompts with equal embeddings, from 0.
    """
    rows = np.ascontiguousarray(embeddings)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def effective_number(prompts: Counts) -> float:
    """Effective number of prompts: the same prompt 2,000 times is one.

    A mean over prompts that occur c times each has the sampling variance of one over
    (Σ c)² / Σ c² different ones.

    Parameters
    ----------
    prompts : int64 array, shape (n_prompts,)
        As :func:`distinct` gives them, at least one.

    Returns
    -------
    float
        In [1, n_prompts].
    """
    counts = np.bincount(prompts).astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())


def evidence_of_task(fit: Fit, sums: TaskSums, task: int) -> TaskEvidence:
    """Means of one task, from its sums.

    Parameters
    ----------
    fit : Fit
    sums : TaskSums
    task : int
        Position of the task, which has a prompt.

    Returns
    -------
    TaskEvidence
        The same whatever the order of the prompts.
    """
    n = int(sums.n_prompts[task])
    # E (Σ signs)² = Σ c² (Alon, Matias and Szegedy 1996): in memory for tasks, not for prompts.
    repeats = float((sums.signs[task].astype(np.float64) ** 2).mean()) / n
    s1, wide = (np.round(total[task] / n, DECIMALS) for total in (sums.near, sums.wide))
    return TaskEvidence(
        n_prompts=n,
        s1=s1,
        s2=sums.above[task] / n,
        support=sums.support[task].copy(),
        local=mean_of_views(s1, wide, sums.datasets[task], fit.means, fit.prior),
        distance=round(float(sums.distance[task]) / n, DECIMALS),
        n_effective=float(n) if repeats < NOT_SEEN else max(n / repeats, 1.0),
    )
