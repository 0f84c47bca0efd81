"""Why a model was chosen under a cost policy, in a sentence."""

from __future__ import annotations

import math

import numpy as np

from benchrouter.decisions.policy import Policy
from benchrouter.files.arrays import Array


def utility_of(score: Array, cost_usd: Array, policy: Policy) -> Array | None:
    """Score − λ·cost of every model; None where the policy has no finite λ.

    Parameters
    ----------
    score, cost_usd : float64 arrays, shape (n_models,)
    policy : Policy

    Returns
    -------
    float64 array, shape (n_models,), or None
    """
    if policy.cost_weight is None or math.isinf(policy.cost_weight):
        return None
    with np.errstate(over="ignore"):
        return np.asarray(score - policy.cost_weight * cost_usd)


def why(
    name: str,
    score: float,
    cost_usd: float,
    chance: float | None,
    policy: Policy,
    within: float | None,
    what: str,
    over_limit: bool,
) -> str:
    """Say what makes a model the one to choose.

    Parameters
    ----------
    name : str
    score, cost_usd : float
    chance : float or None
        Of a correct answer, with `min_success`.
    policy : Policy
    within : float or None
        How far below the largest score a cheaper model may lie.
    what : str
        Name of the score.
    over_limit : bool
        Whether no model is within `max_cost_usd`.
    """
    cap = policy.max_cost_usd
    if over_limit:
        return f"no model is expected to cost at most US$ {cap:g}: {name} is the cheapest"
    of = "" if cap is None else f" of those expected to cost at most US$ {cap:g}"
    if policy.within == "auto" or (within and policy.within is None):
        return (
            f"{name} is the cheapest model within {within:.3f} of the largest {what}{of}, a "
            "difference that held-out records cannot tell from none"
        )
    return _found(name, score, cost_usd, chance, policy, what) + of


def _found(
    name: str, score: float, cost_usd: float, chance: float | None, policy: Policy, what: str
) -> str:
    """What makes the model the one to choose."""
    weight = policy.cost_weight
    if policy.within is not None:
        return f"{name} is the cheapest model within {policy.within:g} of the largest {what}"
    if chance is not None and policy.min_success is not None:
        if chance > policy.min_success:
            return (
                f"{name} is the cheapest model whose chance of a correct answer, {chance:.3f}, "
                f"exceeds {policy.min_success:g}"
            )
        return (
            f"no model's chance of a correct answer exceeds {policy.min_success:g}: {name} has the "
            f"largest {what}"
        )
    if weight is None:
        return f"{name} has the largest {what}"
    if math.isinf(weight):
        return f"{name} is the cheapest model"
    return (
        f"{name} has the largest utility, {what} − λ·cost = {score:.3f} − {weight:g} × "
        f"{cost_usd:.3g} = {score - weight * cost_usd:.3f}"
    )
