"""Tasks under a cost policy: which models may be chosen, what they cost, and the choice among them.

Of a task a model has one score and one expected cost of a prompt; they are weighed as those of a
single prompt are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.costs.cost_policy import (
    CostPolicy,
    CostSource,
    beneath,
    choose,
    cost_weight_within,
)
from benchrouter.decisions.costs.cost_reasons import why
from benchrouter.decisions.costs.cost_rules import as_float32, costs_of, costs_of_prompts, tokens_of
from benchrouter.files.arrays import Array
from benchrouter.scores.fitted import Fit


@dataclass(frozen=True)
class TaskPolicy:
    """What a decision on a task may take, and how cost counts.

    Attributes
    ----------
    allowed : bool array, shape (n_models,)
        Models that may be chosen, at least one.
    policy : CostPolicy or None
        None = cost only decides ties.
    source : "records", "models", "prices" or None
        Where expected costs come from; None without a policy.
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.
    """

    allowed: NDArray[np.bool_]
    policy: CostPolicy | None
    source: CostSource | None
    prices: Array

    def costs(
        self,
        fit: Fit,
        nearest: NDArray[np.int64],
        prompts: Sequence[str] | None,
        tokens: NDArray[np.integer] | None,
        threads: int,
    ) -> NDArray[np.float32] | None:
        """Expected cost of every model on every prompt; None without a policy.

        Parameters
        ----------
        fit : Fit
        nearest : int64 array, shape (n_prompts, at least k)
            Neighbours of the prompts, −1 = none; the first k count.
        prompts : sequence of str, optional
            Their tokens are estimated where costs are prices × tokens.
        tokens : int array, shape (n_prompts,), optional
            Instead of an estimate.
        threads : int
            0 = all.

        Returns
        -------
        float32 array, shape (n_prompts, n_models), or None
            US$; NaN = unknown, only of models that are not allowed.

        Raises
        ------
        TypeError, ValueError
            If tokens are needed and there are neither tokens nor prompts, or they are invalid.
        """
        if self.policy is None or self.source is None:
            return None
        counts = tokens_of(len(nearest), prompts, tokens) if self.source == "prices" else None
        voting = np.ascontiguousarray(nearest[:, : fit.settings.k])
        return costs_of_prompts(fit, self.policy, self.source, self.prices, voting, counts, threads)


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


def task_policy(
    fit: Fit, policy: CostPolicy | None, allowed: NDArray[np.bool_] | None
) -> TaskPolicy:
    """Check what is asked of decisions on tasks.

    Parameters
    ----------
    fit : Fit
    policy : CostPolicy or None
    allowed : bool array, shape (n_models,), or None
        Models that may be chosen; None = all.

    Returns
    -------
    TaskPolicy

    Raises
    ------
    ValueError
        Naming the models whose cost is needed and not known.
    """
    if allowed is None:
        allowed = np.ones(len(fit.models), np.bool_)
    if policy is None:
        return TaskPolicy(allowed, None, None, fit.prices)
    prices, source = costs_of(fit, policy, allowed)
    return TaskPolicy(allowed, policy, source, prices)


def stake_of(
    asked: TaskPolicy, score: Array, accuracy: Array, cost_usd: Array, leading: int, held: bool
) -> Stake:
    """Gather what a policy weighs for a task.

    Parameters
    ----------
    asked : TaskPolicy
        With a policy.
    score, accuracy, cost_usd : float64 arrays, shape (n_models,)
        What is maximised (NaN = unknown), expected accuracy, and expected cost of a prompt.
    leading : int
        Position of the model to choose where cost does not count.
    held : bool
        Whether it is to be chosen although others have larger scores (eq. 8): then none counts
        above it, and none dearer is allowed.

    Returns
    -------
    Stake
    """
    assert asked.policy is not None
    cheapest = float(cost_usd[asked.allowed].min())
    most = asked.policy.max_cost_usd
    cap = math.inf if most is None else as_float32(most)
    limit = max(cap, cheapest)
    if held:
        score, limit = beneath(score, leading), min(limit, float(cost_usd[leading]))
    return Stake(score, cost_usd, accuracy, limit, cheapest > cap, leading)


def weigh(
    fit: Fit, asked: TaskPolicy, stake: Stake, n_prompts: int, what: str
) -> tuple[int, str | None]:
    """Choose a model for a task under a cost policy.

    Parameters
    ----------
    fit : Fit
    asked : TaskPolicy
        With a policy. Its budget is for all prompts of the task.
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
    policy, names = asked.policy, fit.models
    assert policy is not None
    score, cost_usd, accuracy, limit, over_limit, leading = stake
    if policy.budget_usd is not None:
        share = as_float32(policy.budget_usd / n_prompts)
        cheapest = float(cost_usd[asked.allowed].min())
        if cheapest > share:
            raise ValueError(
                f"budget_usd {policy.budget_usd:g} is below what the cheapest model costs on "
                f"{n_prompts:,} prompts, {cheapest * n_prompts:.7g}"
            )
        limit = min(limit, share)
    m = int(_choices(fit, asked, [stake._replace(limit_usd=limit)], policy.cost_weight or 0.0)[0])
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
    fit: Fit, asked: TaskPolicy, stakes: Sequence[Stake], n_prompts: NDArray[np.int64]
) -> float:
    """Find the λ at which the choices for many tasks keep to a budget together.

    Parameters
    ----------
    fit : Fit
    asked : TaskPolicy
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
    assert asked.policy is not None and asked.policy.budget_usd is not None
    cost_usd = np.stack([stake.cost_usd for stake in stakes])
    here = np.arange(len(stakes))

    def total_usd(cost_weight: float) -> float:
        chosen = _choices(fit, asked, stakes, cost_weight)
        return float(n_prompts @ cost_usd[here, chosen])

    return cost_weight_within(asked.policy.budget_usd, total_usd, int(n_prompts.sum()))


def within_of_task(fit: Fit, policy: CostPolicy) -> float | None:
    """ε of a policy for a task: "auto" is what held-out datasets cannot tell from no difference.

    Parameters
    ----------
    fit : Fit
    policy : CostPolicy

    Returns
    -------
    float or None
    """
    if policy.within == "auto":
        return float(fit.expectation.tolerance[1])
    return policy.within


def _choices(
    fit: Fit, asked: TaskPolicy, stakes: Sequence[Stake], cost_weight: float
) -> NDArray[np.int32]:
    """Model of every task at some λ."""
    assert asked.policy is not None
    score, cost_usd, accuracy = (
        np.stack([getattr(stake, name) for stake in stakes])
        for name in ("score", "cost_usd", "accuracy")
    )
    limit = np.array([stake.limit_usd for stake in stakes])
    return choose(
        *(score, cost_usd, limit, fit.preferred, asked.policy),
        *(cost_weight, accuracy, asked.allowed, within_of_task(fit, asked.policy)),
    )
