"""What a task's neighbourhood says of each model's accuracy, and how single records scatter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.evidence import Evidence, prior_without
from benchrouter.scores.held_out import HeldOut, without
from benchrouter.votes.outcomes import Outcomes
from benchrouter.votes.votes import task_scores


def local_accuracy(
    neighbours: Neighbours,
    outcomes: Outcomes,
    dataset: NDArray[np.int32],
    means: Array,
    prior: NDArray[np.float32],
    *,
    k: int,
    kappa: int,
    threads: int = 0,
) -> Array:
    """What the neighbourhood of a task says of every model's accuracy.

    The mean of three views from near to far, each steadier and less particular than the one before:
    the votes of the k nearest records (S1), those of the kappa nearest, and the mean correctness of
    the datasets that the kappa nearest come from.

    Parameters
    ----------
    neighbours : Neighbours
        Arrays of shape (n_prompts, at least max(k, kappa)).
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        Correctness.
    dataset : int32 array, shape (n_records,)
        Dataset code of each record.
    means : float64 array, shape (n_datasets, n_models)
        Mean correctness, NaN = not run.
    prior : float32 array, shape (n_models,)
        Value of a model about which the neighbourhood says nothing.
    k, kappa : int
    threads : int
        0 = all.

    Returns
    -------
    float64 array, shape (n_models,)
    """
    ids = np.ascontiguousarray(neighbours.ids)
    everything = np.array([0, len(ids)])
    near, wide = (
        task_scores(ids, outcomes, everything, prior=prior, k=count, threads=threads).s1[0]
        for count in (k, kappa)
    )
    nearest = ids[:, :kappa]
    share = np.bincount(dataset[nearest[nearest >= 0]], minlength=len(means))
    return mean_of_views(near, wide, share, means, prior)


def mean_of_views(
    near: Array, wide: Array, share: NDArray[np.int64], means: Array, prior: NDArray[np.float32]
) -> Array:
    """Mean of the three views of :func:`local_accuracy`.

    Parameters
    ----------
    near, wide : float64 arrays, shape (n_models,)
        Mean votes of the k and of the kappa nearest records.
    share : int64 array, shape (n_datasets,)
        How many of the kappa nearest come from each dataset.
    means : float64 array, shape (n_datasets, n_models)
        Mean correctness, NaN = not run.
    prior : float32 array, shape (n_models,)

    Returns
    -------
    float64 array, shape (n_models,)
    """
    known = ~np.isnan(means)
    weight = share.astype(np.float64) @ known
    total = share.astype(np.float64) @ np.where(known, means, 0.0)
    of_datasets = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), prior)
    return np.asarray((near + wide + of_datasets) / 3.0)


def local_of_held_out(
    task: HeldOut, evidence: Evidence, also: int | None = None
) -> tuple[float, Array, Array]:
    """What the score `auto` sees of a held-out dataset.

    Parameters
    ----------
    task : HeldOut
    evidence : Evidence
    also : int, optional
        A second dataset to leave out.

    Returns
    -------
    distance : float
        u of the dataset.
    standing, local : float64 arrays, shape (n_models,)
        Standings on the remaining datasets, and :func:`local_accuracy` from them.
    """
    neighbours = without(task, evidence, also)
    prior = prior_without(evidence, *((task.code,) if also is None else (task.code, also)))
    local = local_accuracy(
        neighbours,
        evidence.outcomes,
        evidence.dataset,
        evidence.means,
        prior,
        k=evidence.k,
        kappa=evidence.kappa,
        threads=evidence.threads,
    )
    distance = formulas.task_distance(neighbours.similarities[:, : evidence.kappa])
    return distance, prior.astype(np.float64), local


def within_covariance(
    correctness: NDArray[np.float32], dataset: NDArray[np.int32], n_datasets: int
) -> Array:
    """Covariance of the models' correctness on one record, for every dataset.

    Parameters
    ----------
    correctness : float32 array, shape (n_records, n_models)
        0, 1 or NaN.
    dataset : int32 array, shape (n_records,)
    n_datasets : int

    Returns
    -------
    float64 array, shape (n_datasets, n_models, n_models)
        NaN for two models without two records in common.
    """
    n_models = correctness.shape[1]
    out = np.full((n_datasets, n_models, n_models), np.nan)
    for code in range(n_datasets):
        rows = correctness[dataset == code].astype(np.float64)
        known = ~np.isnan(rows)
        count = known.sum(axis=0)
        mean = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(count, 1)
        away = np.where(known, rows - mean, 0.0)
        common = known.T.astype(np.float64) @ known
        out[code] = np.where(common > 1, away.T @ away / np.maximum(common - 1, 1), np.nan)
    return out


def pooled(within: Array) -> Array:
    """Mean over datasets of :func:`within_covariance`.

    Parameters
    ----------
    within : float64 array, shape (n_datasets, n_models, n_models)

    Returns
    -------
    float64 array, shape (n_models, n_models)
        Where no dataset knows: 1/4 for a model, the variance of a fair coin, and 0 for two.
    """
    known = ~np.isnan(within)
    count = known.sum(axis=0)
    mean = np.where(known, within, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.asarray(np.where(count > 0, mean, np.eye(within.shape[1]) / 4.0))
