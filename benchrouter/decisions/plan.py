"""What a policy comes to on one benchmark: checked, with its numbers found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.costs.sources import Costs, costs_of
from benchrouter.decisions.policy import Policy, Rule
from benchrouter.files.arrays import Floats, Ids
from benchrouter.scores.fitted import Fit

AMONG = ", among the models allowed"  # of reasons


class Plan(NamedTuple):
    """A policy on one benchmark.

    Attributes
    ----------
    policy : Policy
    rule : "auto", "mean", "raw" or "s3"
        Of the policy.
    k : int
        Neighbours that vote.
    depth : int
        Neighbours that are searched.
    allowed : bool array, shape (n_models,)
        Models that may be chosen, at least one.
    narrowed : bool array, shape (n_models,), or None
        The same; None where the policy names none.
    costs : Costs or None
        None = cost only decides ties.
    """

    policy: Policy
    rule: Rule
    k: int
    depth: int
    allowed: NDArray[np.bool_]
    narrowed: NDArray[np.bool_] | None
    costs: Costs | None

    def costs_of_prompts(
        self,
        nearest: Ids,
        prompts: Sequence[str] | None,
        tokens: NDArray[np.integer] | None,
        threads: int,
    ) -> Floats | None:
        """Expected cost of every model on every prompt; None where costs do not count.

        Parameters
        ----------
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
        if self.costs is None:
            return None
        counts = self.costs.tokens(len(nearest), prompts, tokens)
        voting = np.ascontiguousarray(nearest[:, : self.k])
        return self.costs.of_prompts(voting, counts, threads)


def plan_of(fit: Fit, policy: Policy) -> Plan:
    """Check what is asked of decisions on prompts.

    Raises
    ------
    ValueError
        If the benchmark does not offer the rule, lacks a model, or does not know a cost or the
        correctness that is needed; naming it.
    """
    plan = _plan(fit, policy, voters_of(fit, policy))
    if policy.min_success is not None and fit.correct is None:
        raise ValueError(
            "min_success needs to know what is correct: a dataset of this benchmark has no "
            "threshold (--correct-above); use within or a cost weight"
        )
    return plan


def voters_of(fit: Fit, policy: Policy) -> int:
    """How many neighbours vote on a prompt.

    Raises
    ------
    ValueError
        If the benchmark does not offer the policy's rule.
    """
    if policy.rule == "s3" and (fit.correct is None or len(fit.pairs.u) == 0):
        raise ValueError(
            "the rule 's3' needs p̂, and this benchmark gives none: it takes at least two "
            "datasets, each with a correctness threshold; use 'mean' or 'raw'"
        )
    if policy.rule == "auto":
        return fit.expectation.neighbours
    return fit.settings.k if policy.k is None else policy.k


def task_plan(fit: Fit, policy: Policy) -> Plan:
    """Check what is asked of decisions on tasks, which leave `rule` and `k` aside.

    Raises
    ------
    ValueError
        Naming models that the benchmark lacks, or whose cost is needed and not known.
    """
    return _plan(fit, policy, fit.settings.k)


def _plan(fit: Fit, policy: Policy, k: int) -> Plan:
    allowed = allowed_of(fit.models, policy.models)
    costs = costs_of(fit, policy, allowed) if policy.counts_costs else None
    narrowed = None if policy.models is None else allowed
    return Plan(policy, policy.rule, k, max(k, fit.settings.kappa), allowed, narrowed, costs)


def allowed_of(models: Sequence[str], names: Sequence[str] | None) -> NDArray[np.bool_]:
    """Which models may be chosen.

    Parameters
    ----------
    models : sequence of str
        The candidates.
    names : sequence of str or None
        None = all of them.

    Returns
    -------
    bool array, shape (n_models,)

    Raises
    ------
    ValueError
        Naming those that are not candidates.
    """
    if names is None:
        return np.ones(len(models), np.bool_)
    unknown = [name for name in names if name not in models]
    if unknown:
        found = ", ".join(map(repr, unknown))
        raise ValueError(f"models: found {found}, expected some of {list(models)}")
    return np.isin(models, names)
