"""The scores of arXiv 2309.15789 and what surrounds them: small pure functions on arrays.

A *task* is a set of prompts; ``g`` (``n_prompts``, ``n_models``) is the predicted chance that each
model answers each prompt correctly, ``g_bar = g > t`` the predictor's verdict.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array

K_HELM = 5  # neighbours that vote, arXiv 2309.15789, sec. 5 (10 on MixInstruct)
KAPPA = 19  # neighbours that measure the distance of a task, arXiv 2309.15789, eq. 13
SIGMA = 0.09  # width of the smoother's kernel, arXiv 2309.15789, sec. 5
ETA = 0.6  # least chance of beating the best model on average, arXiv 2309.15789, eq. 8
THRESHOLD = 0.5  # a vote above it predicts "correct", arXiv 2309.15789, sec. 3
DISTANCE_FLOOR = 1e-7  # a prompt that stands in the benchmark keeps a positive distance


def dataset_means(
    values: NDArray[np.float32], dataset: NDArray[np.int32], n_datasets: int
) -> Array:
    """Mean of every model on every dataset, over the records that it has.

    Parameters
    ----------
    values : float32 array, shape (n_records, n_models)
        Scores or correctness, NaN = missing.
    dataset : int32 array, shape (n_records,)
        Dataset code of each record, in [0, n_datasets).
    n_datasets : int
        Number of datasets.

    Returns
    -------
    float64 array, shape (n_datasets, n_models)
        NaN where a model has no record of a dataset.
    """
    present = ~np.isnan(values)
    filled = np.where(present, values, np.float32(0)).astype(np.float64)
    totals = np.zeros((n_datasets, values.shape[1]))
    counts = np.zeros((n_datasets, values.shape[1]))
    for code in range(n_datasets):
        rows = dataset == code
        totals[code] = filled[rows].sum(axis=0)
        counts[code] = present[rows].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(totals / np.where(counts > 0, counts, np.nan))


def standing(means: Array) -> Array:
    """Benchmark mean ``b_m`` of every model, fair to models that ran only some datasets.

    With nothing missing it is the plain mean over datasets. Otherwise dataset effects and model
    effects are fitted by least squares, and a model's standing is its effect plus the mean dataset
    effect: a model that ran only easy datasets gains nothing by it.

    Parameters
    ----------
    means : float64 array, shape (n_datasets, n_models)
        As :func:`dataset_means` gives it; NaN = not run.

    Returns
    -------
    float64 array, shape (n_models,)
        In the unit of the scores; the additive fit of a model that ran on few datasets may leave
        their range.

    Raises
    ------
    ValueError
        If a model or a dataset has no score at all.
    """
    present = ~np.isnan(means)
    if not present.any(axis=0).all():
        models = np.flatnonzero(~present.any(axis=0)).tolist()
        raise ValueError(f"models {models} have no score on any dataset; drop them first")
    if not present.any(axis=1).all():
        datasets = np.flatnonzero(~present.any(axis=1)).tolist()
        raise ValueError(f"datasets {datasets} have no score of any model; drop them first")
    if present.all():
        return np.asarray(means.mean(axis=0))
    filled = np.where(present, means, 0.0)
    weight = present.astype(np.float64)
    per_dataset = weight.sum(axis=1)
    # Normal equations of mean[d, m] = dataset[d] + model[m], the dataset effects eliminated.
    system = np.diag(weight.sum(axis=0)) - weight.T @ (weight / per_dataset[:, None])
    dataset_mean = filled.sum(axis=1) / per_dataset
    model_effect = np.linalg.pinv(system) @ (filled.sum(axis=0) - weight.T @ dataset_mean)
    dataset_effect = dataset_mean - (weight @ model_effect) / per_dataset
    return np.asarray(model_effect + dataset_effect.mean())


def preference(cost_usd: Array, prices: Array, params_b: Array) -> NDArray[np.int32]:
    """Rank of every model among equals: lower cost, then fewer parameters, then table order.

    Parameters
    ----------
    cost_usd : float64 array, shape (n_models,)
        Recorded cost per prompt; NaN = unknown, which comes last.
    prices : float64 array, shape (n_models, 2)
        Listed prices in and out. Their sum is the cost where no model's cost was recorded.
    params_b : float64 array, shape (n_models,)
        Billions of parameters; NaN = unknown, which comes last.

    Returns
    -------
    int32 array, shape (n_models,)
        A permutation of 0 … n_models − 1; the smallest wins a tie.
    """
    cost = prices.sum(axis=1) if np.isnan(cost_usd).all() else cost_usd
    order = np.lexsort((np.arange(len(cost)), _last(params_b), _last(cost)))
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank


def _last(values: Array) -> Array:
    return np.where(np.isnan(values), np.inf, values)


def best_model(score: Array, preferred: NDArray[np.int32], s1: Array | None = None) -> int:
    """Choose the model of the largest score; ties by S1 where given, then by preference.

    Parameters
    ----------
    score : float64 array, shape (n_models,)
        NaN never wins.
    preferred : int32 array, shape (n_models,)
        As :func:`preference` gives it.
    s1 : float64 array, shape (n_models,), optional
        First tie-break of a task.

    Returns
    -------
    int
        Position of the model.

    Raises
    ------
    ValueError
        If every score is NaN.
    """
    if np.isnan(score).all():
        raise ValueError("no model has a score: every value is NaN")
    first_tie = np.zeros_like(score) if s1 is None else -_worst(s1)
    return int(np.lexsort((preferred, first_tie, -_worst(score)))[0])


def _worst(values: Array) -> Array:
    return np.where(np.isnan(values), -np.inf, values)


def best_on_average(means: Array, preferred: NDArray[np.int32]) -> int:
    """Choose the best model on average (BMA), m*: the largest macro average of dataset means.

    Parameters
    ----------
    means : float64 array, shape (n_datasets, n_models)
        As :func:`dataset_means` gives it.
    preferred : int32 array, shape (n_models,)
        Decides ties.

    Returns
    -------
    int
        Position of the model. Only models with a score on every dataset (that anyone was run on)
        are candidates; where there is none, those with scores on the most datasets are, compared
        by their standing.

    Raises
    ------
    ValueError
        If there is no score at all.
    """
    present = ~np.isnan(means)
    if not present.any():
        raise ValueError("no model has a score on any dataset")
    datasets, models = present.any(axis=1), present.any(axis=0)
    coverage = present.sum(axis=0)
    score = np.full(means.shape[1], np.nan)
    score[models] = standing(means[np.ix_(datasets, models)])
    return best_model(np.where(coverage == coverage.max(), score, np.nan), preferred)


def task_distance(similarities: NDArray[np.float32]) -> float:
    """Mean cosine distance u of a task to its nearest benchmark records.

    Parameters
    ----------
    similarities : float32 array, shape (n_prompts, kappa)
        Cosine similarity of each prompt to its nearest records, −inf = none.

    Returns
    -------
    float
        In [0, 2]; about 0 = every prompt stands in the benchmark. arXiv 2309.15789, eq. 12.

    Raises
    ------
    ValueError
        If there is no prompt, or a prompt without any neighbour.
    """
    if similarities.shape[0] == 0:
        raise ValueError("a task needs at least one prompt, found none")
    return float(prompt_distances(similarities).mean())


def prompt_distances(similarities: NDArray[np.float32]) -> Array:
    """Mean cosine distance of each prompt to its nearest records.

    Parameters
    ----------
    similarities : float32 array, shape (n_prompts, kappa)
        −inf = no such neighbour.

    Returns
    -------
    float64 array, shape (n_prompts,)

    Raises
    ------
    ValueError
        If a prompt has no neighbour at all.
    """
    found = np.isfinite(similarities)
    if not found.any(axis=1).all():
        raise ValueError("a prompt without any neighbour has no distance")
    distance = np.maximum(1.0 - similarities.astype(np.float64), DISTANCE_FLOOR)
    return np.asarray(np.where(found, distance, 0.0).sum(axis=1) / found.sum(axis=1))


def s3(s2: Array, p: Array) -> Array:
    """S3 = S2·p + (1 − S2)(1 − p), arXiv 2309.15789, eq. 7.

    Parameters
    ----------
    s2 : float64 array, shape (..., n_models)
        Share of the task's prompts that the predictor calls correct.
    p : float64 array, same shape
        Chance that the predictor is right on this task.

    Returns
    -------
    float64 array, same shape
    """
    return np.asarray(s2 * p + (1.0 - s2) * (1.0 - p))


def smooth(u: Array, pair_u: Array, pair_p: Array, sigma: float = SIGMA) -> Array:
    """Gaussian kernel smoother of p against u, arXiv 2309.15789, eq. 14.

    Parameters
    ----------
    u : float64 array, shape (n_points,)
        Distances at which p̂ is wanted.
    pair_u : float64 array, shape (n_pairs,)
        Distances of the training pairs.
    pair_p : float64 array, shape (n_pairs, n_models)
        Accuracy of the predictor in each pair; NaN = the model did not run there.
    sigma : float
        Width of the kernel, in units of u.

    Returns
    -------
    float64 array, shape (n_points, n_models)
        p̂. Far from every pair it tends to the nearest pair's p; NaN for a model without pairs.
    """
    present = ~np.isnan(pair_p)
    filled = np.where(present, pair_p, 0.0)
    out = np.empty((len(u), pair_p.shape[1]))
    for start in range(0, len(u), 256):  # bounds the (points, pairs) block
        exponent = -((u[start : start + 256, None] - pair_u[None, :]) ** 2) / (2.0 * sigma**2)
        if present.all():
            kernel = np.exp(exponent - exponent.max(axis=1, keepdims=True))
            out[start : start + 256] = (kernel @ filled) / kernel.sum(axis=1, keepdims=True)
            continue
        for m in range(pair_p.shape[1]):
            here = present[:, m]
            if not here.any():
                out[start : start + 256, m] = np.nan
                continue
            kernel = np.exp(exponent[:, here] - exponent[:, here].max(axis=1, keepdims=True))
            out[start : start + 256, m] = (kernel @ filled[here, m]) / kernel.sum(axis=1)
    return out


def prior_weight_of_p(p: Array, p_hat: Array, n_records: NDArray[np.int64]) -> float:
    """τ: how many labelled prompts the smoother's p̂ is worth.

    The p of a held-out dataset is taken as Beta(τ·p̂, τ·(1 − p̂)), whose variance is
    p̂(1 − p̂)/(τ + 1). The squared errors of p̂ on held-out datasets, less what the finite number
    of records explains, estimate that variance; τ follows.

    Parameters
    ----------
    p, p_hat : float64 arrays, shape (n_datasets, n_models)
        True and smoothed accuracy of the predictor on every held-out dataset; NaN = unknown.
    n_records : int64 array, shape (n_datasets,)
        Records behind each p.

    Returns
    -------
    float
        In [1, 1000]: never certain either way.
    """
    known = ~(np.isnan(p) | np.isnan(p_hat))
    if not known.any():
        return 1.0
    noise = (p * (1.0 - p)) / np.maximum(n_records, 2)[:, None]
    spread = float(np.mean(((p - p_hat) ** 2 - noise)[known]))
    room = float(np.mean((p_hat * (1.0 - p_hat))[known]))
    if spread * 1000.0 <= room:
        return 1000.0
    return max(room / spread - 1.0, 1.0)


def label_informed_p(
    p_hat: Array, g_bar: NDArray[np.bool_], labels: NDArray[np.floating], tau: float
) -> Array:
    """Measure p of a task on labelled prompts, p̂ as prior: (τ·p̂ + right) / (τ + n).

    Parameters
    ----------
    p_hat : float64 array, shape (n_models,)
    g_bar : bool array, shape (n_labels, n_models)
        The predictor's verdict on the labelled prompts, made without their labels.
    labels : float array, shape (n_labels, n_models)
        Correctness 0 or 1, NaN = not labelled.
    tau : float
        Weight of p̂, in labelled prompts.

    Returns
    -------
    float64 array, shape (n_models,)
    """
    known = ~np.isnan(labels)
    right = (known & (g_bar == (labels > 0.5))).sum(axis=0)
    return np.asarray((tau * p_hat + right) / (tau + known.sum(axis=0)))


def probability_better(
    s2: tuple[float, float],
    p: tuple[float, float],
    n: int,
    *,
    method: Literal["exact", "draws"] = "exact",
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """P(S̃(a) > S̃(b)): the chance that model a truly answers more of n prompts than model b.

    Model m is right on Binom(n₊, p) + Binom(n − n₊, 1 − p) prompts, n₊ = S2·n, independently of
    the other (arXiv 2309.15789, eq. 8; strict inequality).

    Parameters
    ----------
    s2, p : pairs of float
        S2 and p of models a and b.
    n : int
        Number of prompts of the task.
    method : "exact" or "draws"
        "exact" convolves the laws, to about 1e-12; "draws" is the paper's Monte Carlo.
    draws, seed : int
        For "draws" only.

    Returns
    -------
    float
        In [0, 1].
    """
    positive = [round(share * n) for share in s2]
    if method == "draws":
        rng = np.random.default_rng(seed)
        a, b = (
            rng.binomial(hit, chance, draws) + rng.binomial(n - hit, 1.0 - chance, draws)
            for hit, chance in zip(positive, p, strict=True)
        )
        return float(np.mean(a > b))
    if method != "exact":
        raise ValueError(f"method must be 'exact' or 'draws', got {method!r}")
    law_a, law_b = (
        _convolve(_binomial_law(hit, chance), _binomial_law(n - hit, 1.0 - chance))
        for hit, chance in zip(positive, p, strict=True)
    )
    below = np.concatenate(([0.0], np.cumsum(law_b[1])))  # below[i] = P(b < first count of b + i)
    at = np.clip(np.arange(len(law_a[1])) + law_a[0] - law_b[0], 0, len(below) - 1)
    return float(np.clip(law_a[1] @ below[at], 0.0, 1.0))


Law = tuple[int, Array]  # the first count, and the probabilities of it and of those that follow


def _convolve(one: Law, other: Law) -> Law:
    return one[0] + other[0], np.asarray(np.convolve(one[1], other[1]))


def _binomial_law(n: int, p: float) -> Law:
    """Probabilities of the counts that n draws may give, but for a tail below 1e-18."""
    if p <= 0.0 or p >= 1.0:
        return (0 if p <= 0.0 else n), np.ones(1)
    reach = 10.0 * math.sqrt(n * p * (1.0 - p)) + 30.0  # Bernstein's inequality
    low, high = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    hits = np.arange(low, high + 1)
    # log of pmf(h + 1)/pmf(h), summed up from the lowest count
    steps = np.log((n - hits[:-1]) / (hits[:-1] + 1)) + math.log(p) - math.log1p(-p)
    log_law = np.concatenate(([0.0], np.cumsum(steps)))
    law = np.exp(log_law - log_law.max())
    return low, np.asarray(law / law.sum())
