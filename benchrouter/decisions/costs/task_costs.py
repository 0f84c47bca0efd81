"""Tasks under a cost policy: which models may be chosen, what they cost, and the choice among them.

Of a task a model has one score and one expected cost of a prompt; they are weighed as those of a
single prompt are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.costs.choice import as_float32, beneath, choose, cost_weight_within
from benchrouter.decisions.costs.reasons import why
from benchrouter.decisions.plan import Plan
from benchrouter.decisions.policy import Policy
from benchrouter.files.arrays import Array
from benchrouter.scores.fitted import Fit


class Stake(NamedTuple):
    """What is weighed for a task; arrays of shape (n_models,)."""

    score: Array
    cost_usd: Array
    """Expected cost of a prompt."""
    accuracy: Array
    """Expected accuracy, for `min_success`."""
    limit_usd: float
    """Dearer models are not allowed; one that may be chosen is not."""
    over_limit: bool
    """Whether no model is within the policy's `max_cost_usd`."""
    leading: int
    """The model to choose where cost does not count."""


def stake_of(
    plan: Plan, score: Array, accuracy: Array, cost_usd: Array, leading: int, held: bool
) -> Stake:
    """Gather what a policy weighs for a task.

    Parameters
    ----------
    plan : Plan
        By which costs count.
    score, accuracy, cost_usd : float64 arrays, shape (n_models,)
        What is maximised (NaN = unknown), expected accuracy, and expected cost of a prompt.
    leading : int
        Position of the model to choose where cost does not count.
    held : bool
        Whether it is to be chosen although others have larger scores (eq. 8): then none counts
        above it, and none dearer is allowed.
    """
    cheapest = float(cost_usd[plan.allowed].min())
    most = plan.policy.max_cost_usd
    cap = math.inf if most is None else as_float32(most)
    limit = max(cap, cheapest)
    if held:
        score, limit = beneath(score, leading), min(limit, float(cost_usd[leading]))
    return Stake(score, cost_usd, accuracy, limit, cheapest > cap, leading)


def weigh(fit: Fit, plan: Plan, stake: Stake, n_prompts: int, what: str) -> tuple[int, str | None]:
    """Choose a model for a task under a cost policy.

    Parameters
    ----------
    fit : Fit
    plan : Plan
        By which costs count. Its budget is for all prompts of the task.
    stake : Stake
    n_prompts : int
    what : str
        Name of the score.

    Returns
    -------
    model : int
    reason : str or None
        What cost had to do with it; None where it is the leading model.

    Raises
    ------
    ValueError
        If the budget is below what the cheapest model costs.
    """
    policy, names = plan.policy, fit.models
    score, cost_usd, accuracy, limit, over_limit, leading = stake
    if policy.budget_usd is not None:
        share = as_float32(policy.budget_usd / n_prompts)
        cheapest = float(cost_usd[plan.allowed].min())
        if cheapest > share:
            raise ValueError(
                f"budget_usd {policy.budget_usd:g} is below what the cheapest model costs on "
                f"{n_prompts:,} prompts, {cheapest * n_prompts:.7g}"
            )
        limit = min(limit, share)
    m = int(_choices(fit, plan, [stake._replace(limit_usd=limit)], policy.cost_weight or 0.0)[0])
    if m == leading and not over_limit:
        return m, None
    found = why(
        *(names[m], float(score[m]), float(cost_usd[m]), float(accuracy[m])),
        *(policy, within_of_task(fit, policy), what, over_limit),
    )
    if policy.budget_usd is not None:
        found += f" of those within US$ {policy.budget_usd:g} for all prompts"
    found += f": {score[m]:.3f} for US$ {cost_usd[m]:.3g} a prompt"
    if m != leading:
        found += (
            f"; if cost did not count it would be {names[leading]}, {score[leading]:.3f} for US$ "
            f"{cost_usd[leading]:.3g}"
        )
    return m, found


def shared_cost_weight(
    fit: Fit, plan: Plan, stakes: Sequence[Stake], n_prompts: NDArray[np.int64]
) -> float:
    """Find the λ at which the choices for many tasks keep to a budget together.

    Parameters
    ----------
    fit : Fit
    plan : Plan
        With a budget.
    stakes : sequence of Stake
        One a task.
    n_prompts : int64 array, shape (n_tasks,)

    Returns
    -------
    float
        In score per US$ of a prompt.

    Raises
    ------
    ValueError
        If the budget is below what the cheapest models cost.
    """
    assert plan.policy.budget_usd is not None
    cost_usd = np.stack([stake.cost_usd for stake in stakes])
    here = np.arange(len(stakes))

    def total_usd(cost_weight: float) -> float:
        chosen = _choices(fit, plan, stakes, cost_weight)
        return float(n_prompts @ cost_usd[here, chosen])

    return cost_weight_within(plan.policy.budget_usd, total_usd, int(n_prompts.sum()))


def within_of_task(fit: Fit, policy: Policy) -> float | None:
    """ε of a policy for a task: "auto" is what held-out datasets cannot tell from no difference."""
    if policy.within == "auto":
        return float(fit.expectation.tolerance[1])
    return policy.within


def _choices(
    fit: Fit, plan: Plan, stakes: Sequence[Stake], cost_weight: float
) -> NDArray[np.int32]:
    """Model of every task at some λ."""
    score, cost_usd, accuracy = (
        np.stack([getattr(stake, name) for stake in stakes])
        for name in ("score", "cost_usd", "accuracy")
    )
    limit = np.array([stake.limit_usd for stake in stakes])
    return choose(
        *(score, cost_usd, limit, fit.preferred, plan.policy),
        *(cost_weight, accuracy, plan.allowed, within_of_task(fit, plan.policy)),
    )
