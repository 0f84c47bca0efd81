"""What the prompts of tasks add up to: all that a decision on a task without labels needs.

The sums of many tasks are gathered from prompts in any order and in any number of parts, and take
memory for tasks, not for prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter import scores
from benchrouter.fit import Fit
from benchrouter.local import mean_of_views
from benchrouter.neighbours import Neighbours
from benchrouter.voting import task_scores

# Sums differ in their last bits with the order of the prompts. Rounded, they do not: equal models
# stay equal, and the cheaper one is chosen.
DECIMALS = 12

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


class Tally(NamedTuple):
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
        As :func:`benchrouter.local.local_accuracy` gives it.
    distance : float
        u of the task.
    """

    n_prompts: int
    s1: Array
    s2: Array
    support: Counts
    local: Array
    distance: float


def no_tally(fit: Fit, n_tasks: int) -> Tally:
    """Tally of tasks without any prompt.

    Parameters
    ----------
    fit : Fit
    n_tasks : int

    Returns
    -------
    Tally
    """
    models, datasets = (n_tasks, len(fit.models)), (n_tasks, len(fit.datasets))
    return Tally(
        np.zeros(n_tasks, np.int64),
        np.zeros(models),
        np.zeros(models),
        np.zeros(models, np.int64),
        np.zeros(models, np.int64),
        np.zeros(datasets, np.int64),
        np.zeros(n_tasks),
    )


def tally(fit: Fit, neighbours: Neighbours, offsets: Counts, *, threads: int = 0) -> Tally:
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
    threads : int
        0 = all.

    Returns
    -------
    Tally
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
    distances = scores.prompt_distances(neighbours.similarities[:, : settings.kappa])
    return Tally(
        n_prompts,
        near.s1 * each,
        wide.s1 * each,
        np.rint(near.s2 * each).astype(np.int64),
        near.support,
        _datasets(fit, ids[:, : settings.kappa], n_prompts),
        np.add.reduceat(distances, offsets[:-1]),
    )


def _datasets(fit: Fit, nearest: Counts, n_prompts: Counts) -> Counts:
    n_tasks, n_datasets = len(n_prompts), len(fit.datasets)
    task = np.repeat(np.arange(n_tasks), n_prompts)
    cell = task[:, None] * n_datasets + fit.dataset[nearest]
    counts = np.bincount(cell[nearest >= 0], minlength=n_tasks * n_datasets)
    return counts.reshape(n_tasks, n_datasets)


def evidence_of_task(fit: Fit, sums: Tally, task: int) -> TaskEvidence:
    """Means of one task, from its sums.

    Parameters
    ----------
    fit : Fit
    sums : Tally
    task : int
        Position of the task, which has a prompt.

    Returns
    -------
    TaskEvidence
        The same whatever the order of the prompts.
    """
    n = int(sums.n_prompts[task])
    s1, wide = (np.round(total[task] / n, DECIMALS) for total in (sums.near, sums.wide))
    return TaskEvidence(
        n_prompts=n,
        s1=s1,
        s2=sums.above[task] / n,
        support=sums.support[task].copy(),
        local=mean_of_views(s1, wide, sums.datasets[task], fit.means, fit.prior),
        distance=round(float(sums.distance[task]) / n, DECIMALS),
    )
