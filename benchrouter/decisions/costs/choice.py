"""The choice by score and cost: λ, tolerance, chance of success, and the λ of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.policy import Policy
from benchrouter.files.arrays import Array

BUDGET_USED = 0.999  # a λ that spends so much of a budget is near enough
STEPS = 100  # of the bisection at most: λ is then known to the last bit, or almost
ROUNDING = 1e-6  # of a budget: costs are float32


def choose(
    score: Array,
    cost_usd: Array,
    limit_usd: Array,
    preference: NDArray[np.int32],
    policy: Policy,
    cost_weight: float = 0.0,
    chance: Array | None = None,
    among: NDArray[np.bool_] | None = None,
    within: Array | float | None = None,
) -> NDArray[np.int32]:
    """Choose a model for every prompt under a policy.

    Parameters
    ----------
    score, cost_usd : float64 arrays, shape (n_prompts, n_models)
        Predicted score (NaN never wins) and expected cost (finite).
    limit_usd : float64 array, shape (n_prompts,)
        Dearer models are not allowed; each prompt has one that is.
    preference : int32 array, shape (n_models,)
        Rank of every model among equals.
    policy : Policy
        Its `min_success`.
    cost_weight : float
        λ, where neither `within` nor `min_success` is given.
    chance : float64 array, shape (n_prompts, n_models), optional
        Calibrated chance of success, for `min_success`.
    among : bool array, shape (n_models,) or (n_prompts, n_models), optional
        Models that may be chosen, by default all.
    within : float, or float64 array of shape (n_prompts, 1), optional
        The cheapest model wins whose score is at least the best less this.

    Returns
    -------
    int32 array, shape (n_prompts,)
        Ties: by lower cost (of equally cheap models by larger score), then by preference.
    """
    order = np.argsort(preference)
    cost = cost_usd[:, order]
    score = np.where(np.isnan(score), -np.inf, score)[:, order]
    allowed = cost <= limit_usd[:, None]
    if among is not None:
        allowed &= among[..., order]
    if within is not None:
        best = np.where(allowed, score, -np.inf).max(axis=1, keepdims=True)
        picked = _first(allowed & (score >= best - within), -cost, score)
    elif policy.min_success is not None and chance is not None:
        enough = allowed & (chance[:, order] > policy.min_success)
        found = enough.any(axis=1)
        picked = np.where(found, _first(enough, -cost, score), _first(allowed, score, -cost))
    elif math.isinf(cost_weight):
        picked = _first(allowed, -cost, score)
    else:
        with np.errstate(over="ignore"):  # an infinite loss loses, and its ties go by cost
            picked = _first(allowed, score - cost_weight * cost, -cost)
    return order[picked].astype(np.int32)


def _first(candidates: NDArray[np.bool_], *keys: Array) -> NDArray[np.int64]:
    """First column among the candidates of each row that are largest by each key in turn."""
    for key in keys:
        ranked = np.where(candidates, key, -np.inf)
        candidates = candidates & (ranked == ranked.max(axis=1, keepdims=True))
    return candidates.argmax(axis=1)


def beneath(score: Array, at: int) -> Array:
    """Scores of models of which none counts above that of one of them.

    Parameters
    ----------
    score : float64 array, shape (n_models,)
    at : int
        Position of that model.

    Returns
    -------
    float64 array, shape (n_models,)
        The others lie at least a hair below it.
    """
    found = np.minimum(score, np.nextafter(score[at], -np.inf))
    found[at] = score[at]
    return found


def cost_weight_within(
    budget_usd: float, total_usd: Callable[[float], float], n_prompts: int
) -> float:
    """Find a λ that keeps to a budget and nearly spends it, by bisection.

    Parameters
    ----------
    budget_usd : float
        For all prompts; kept to its millionth part, as costs are float32.
    total_usd : callable
        λ to the total cost of the choices at λ, which falls as λ grows.
    n_prompts : int
        Of the total.

    Returns
    -------
    float
        0 where the best models are within the budget; else the smallest λ that keeps to it, or one
        that spends 99.9 % of it. Infinite where nothing less than the cheapest models will do.

    Raises
    ------
    ValueError
        If even the cheapest models cost more, naming what they cost.
    """
    most = budget_usd * (1.0 + ROUNDING)
    best_usd = total_usd(0.0)
    if best_usd <= most:
        return 0.0
    least_usd = total_usd(math.inf)
    if least_usd > most:
        raise ValueError(
            f"budget_usd {budget_usd:g} is below what the cheapest models cost, {least_usd:.7g}"
        )
    low, high = 0.0, 1e-3 * n_prompts / best_usd
    while total_usd(high) > most:
        low, high = high, 8.0 * high
        if math.isinf(high):
            return high
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        spent_usd = total_usd(middle)
        if spent_usd > most:
            low = middle
            continue
        high = middle
        if spent_usd >= BUDGET_USED * budget_usd:
            break
    return high


def as_float32(value: float) -> float:
    """Round as costs are, so that a model that costs 0.1 is not above a limit of 0.1."""
    return float(np.float32(min(value, float(np.finfo(np.float32).max))))
