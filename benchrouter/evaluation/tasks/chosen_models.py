"""The model that each rule chooses for a held-out dataset, in every cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.scores import formulas

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ChosenModels:
    """ChosenModels of every rule in the cells of one dataset, in one nesting.

    Attributes
    ----------
    p_hat : float64 array, shape (n_cells, n_models)
        The smoother's estimate of p.
    probability : float64 array, shape (n_cells,)
        Chance that S3's model beats the best on average.
    picks : dict of str to int64 array, shape (n_cells,)
        By rule, in the order of the paper's table, then the bounds.
    """

    p_hat: Array
    probability: Array
    picks: dict[str, Positions]


def best_models(
    score: Array, preferred: NDArray[np.int32], otherwise: Positions, s1: Array | None = None
) -> Positions:
    """Choose the model of the largest score in every cell, as :func:`scores.best_model` does.

    Parameters
    ----------
    score : float64 array, shape (..., n_models)
        NaN never wins.
    preferred : int32 array, shape (n_models,)
        Last tie-break; the smallest wins.
    otherwise : int64 array, shape broadcastable to (...)
        The choice where every score is NaN.
    s1 : float64 array, shape of `score`, optional
        First tie-break.

    Returns
    -------
    int64 array, shape (...)
        Positions of the models.
    """
    top = score == _worst(score).max(axis=-1, keepdims=True)
    if s1 is not None:
        tied = np.where(top, _worst(s1), -np.inf)
        top &= tied == tied.max(axis=-1, keepdims=True)
    found = np.where(top, preferred, len(preferred)).argmin(axis=-1)
    return np.where(top.any(axis=-1), found, otherwise).astype(np.int64)


def _worst(values: Array) -> Array:
    return np.where(np.isnan(values), -np.inf, values)


def chances(models: Positions, rivals: Positions, s2: Array, p: Array, n: Positions) -> Array:
    """Chance that each model beats its rival (eq. 8), each distinct cell computed once.

    Parameters
    ----------
    models, rivals : int64 arrays, shape (n_cells,)
    s2, p : float64 arrays, shape (n_cells, n_models)
    n : int64 array, shape (n_cells,)
        Prompts of the task.

    Returns
    -------
    float64 array, shape (n_cells,)
        NaN where S2 or p of either is unknown.
    """
    cells = np.arange(len(models))
    values = [(a[cells, models], a[cells, rivals]) for a in (s2, p)]
    known = np.column_stack([*values[0], *values[1], n])
    distinct, which = np.unique(known, axis=0, return_inverse=True)
    chance = [
        formulas.probability_better((a, b), (p_a, p_b), int(count))
        if not np.isnan((a, b, p_a, p_b)).any()
        else np.nan
        for a, b, p_a, p_b, count in distinct
    ]
    return np.array(chance, dtype=np.float64)[which.ravel()]


def smooth(u: Array, pair_u: Array, pair_p: Array, sigma: float) -> Array:
    """As :func:`formulas.smooth`, but skip pairs of unknown u or p, and stay fast.

    Parameters
    ----------
    u : float64 array, shape (n_points,)
    pair_u : float64 array, shape (n_pairs,)
        NaN = no such pair.
    pair_p : float64 array, shape (n_pairs, n_models)
    sigma : float

    Returns
    -------
    float64 array, shape (n_points, n_models)
        NaN for a model without pairs.
    """
    present = ~np.isnan(pair_p) & ~np.isnan(pair_u)[:, None]
    if present.all():
        return formulas.smooth(u, pair_u, pair_p, sigma)
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    found = np.full((len(u), pair_p.shape[1]), np.nan)
    for i, rows in enumerate(patterns.T):
        models = np.flatnonzero(which.ravel() == i)
        if rows.any():
            found[:, models] = formulas.smooth(u, pair_u[rows], pair_p[np.ix_(rows, models)], sigma)
    return found


def choices(
    *,
    bma: Positions,
    s1: Array,
    s2: Array,
    p: Array,
    p_hat: Array,
    n: NDArray[np.int64],
    log_likelihood: Array | None,
    accuracy: Array,
    preferred: NDArray[np.int32],
    cheapest: bool,
    eta: float,
) -> ChosenModels:
    """Choose by every rule in every cell of one nesting.

    Where a rule has no score for any model, it chooses the best on average.

    Parameters
    ----------
    bma : int64 array, shape (n_cells,)
        Best model on average.
    s1, s2, p, p_hat : float64 arrays, shape (n_cells, n_models)
    n : int64 array, shape (n_cells,)
        Records that are not labelled.
    log_likelihood : float64 array, shape (n_cells, n_models), or None
        Mean over those records; None = not known of every model that was run: no rule "LL".
    accuracy : float64 array, shape (n_cells, n_models)
        True accuracy, for the oracle.
    preferred : int32 array, shape (n_models,)
        Decides ties.
    cheapest : bool
        Whether `preferred` says which model is the cheapest; if not, no such rule.
    eta : float
        Least chance of beating the best on average, for the rules with fallback.
    """
    s3 = best_models(formulas.s3(s2, p_hat), preferred, bma, s1)
    probability = chances(s3, bma, s2, p_hat, n)
    true_s3 = best_models(formulas.s3(s2, p), preferred, bma, s1)
    true_probability = chances(true_s3, bma, s2, p, n)
    picks = {
        "BMA": bma,
        "S1": best_models(s1, preferred, bma),
        "S2": best_models(s2, preferred, bma, s1),
        "S3": s3,
        "S3 with fallback": np.where(probability > eta, s3, bma),
        "S3 true p": np.where(true_probability > eta, true_s3, bma),
    }
    if log_likelihood is not None:
        picks["LL"] = best_models(log_likelihood, preferred, bma)
    if cheapest:
        picks["cheapest"] = np.full_like(bma, int(np.argmin(preferred)))
    picks["oracle"] = best_models(accuracy, preferred, bma)
    return ChosenModels(p_hat, probability, picks)


def as_names(picks: Mapping[str, Positions], models: tuple[str, ...]) -> dict[str, list[str]]:
    """Names of the models chosen in the first cell of every dataset.

    Parameters
    ----------
    picks : mapping of str to int64 array, shape (n_datasets, n_shares, n_draws)
    models : tuple of str

    Returns
    -------
    dict of str to list of str
    """
    return {rule: [models[m] for m in chosen[:, 0, 0]] for rule, chosen in picks.items()}
