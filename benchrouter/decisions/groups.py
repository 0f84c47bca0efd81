"""Many tasks in one pass: prompts in any order, each with the task it belongs to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import TaskDecision
from benchrouter.decisions.backend import BLOCK
from benchrouter.decisions.costs.task_costs import shared_cost_weight
from benchrouter.decisions.plan import Plan, task_plan
from benchrouter.decisions.policy import Policy
from benchrouter.decisions.task import Score, decide, mean_cost, stake
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.fitted import Fit
from benchrouter.scores.task_sums import TaskSums, evidence_of_task, no_sums, sums_of_tasks


class Groups:
    """What the prompts of many tasks add up to; of a prompt nothing is kept but its part in sums.

    Parameters
    ----------
    fit : Fit
        With correctness.
    index : Index
        Over the fit's embeddings.
    policy : Policy
        Models that may be chosen, and how cost counts.
    """

    def __init__(self, fit: Fit, index: Index, policy: Policy) -> None:
        self._fit = fit
        self._index = index
        self._plan = task_plan(fit, policy)
        self._position: dict[Hashable, int] = {}
        self._sums = no_sums(fit, 0)
        self._cost_usd = np.zeros((0, len(fit.models)))  # of all prompts of a task

    def add(
        self,
        groups: Sequence[Hashable],
        embeddings: NDArray[np.float32],
        prompts: Sequence[str] | None = None,
        tokens: NDArray[np.integer] | None = None,
    ) -> None:
        """Add prompts.

        Parameters
        ----------
        groups : sequence of hashable, or array of shape (n_prompts,)
            Name of the task of every prompt; equal names are one task.
        embeddings : float32 array, shape (n_prompts, dim)
            Unit rows.
        prompts : sequence of str, optional
            Their tokens are estimated where costs are prices × tokens.
        tokens : int array, shape (n_prompts,), optional
            Instead of an estimate.

        Raises
        ------
        TypeError, ValueError
            If there are more or fewer names than embeddings, or a name is missing (None or NaN);
            if tokens are needed and missing.
        """
        position = self._positions(groups, len(embeddings))
        if tokens is not None and len(tokens) != len(position):
            raise ValueError(f"{len(tokens)} tokens came with {len(position)} prompts")
        for start in range(0, len(embeddings), BLOCK):
            block = slice(start, start + BLOCK)
            self._add(
                position[block],
                embeddings[block],
                None if prompts is None else prompts[block],
                None if tokens is None else tokens[block],
            )

    def decisions(self, score: Score) -> Iterator[tuple[Hashable, TaskDecision]]:
        """Choose a model for every task.

        Parameters
        ----------
        score : "auto", "s1", "s2" or "s3"

        Yields
        ------
        (hashable, TaskDecision)
            Name and decision, in the order in which the tasks first appeared.
        """
        plan = self._within_budget(score)
        for group, position in self._position.items():
            seen = evidence_of_task(self._fit, self._sums, position)
            yield group, decide(self._fit, seen, score, plan, self._cost_of(position))

    def _within_budget(self, score: Score) -> Plan:
        """The plan, with the λ of a budget for all tasks in the budget's place."""
        plan = self._plan
        if plan.policy.budget_usd is None or not self._position:
            return plan
        stakes = []
        for position in range(len(self._position)):
            cost_usd = self._cost_of(position)
            assert cost_usd is not None
            seen = evidence_of_task(self._fit, self._sums, position)
            stakes.append(stake(self._fit, seen, score, plan, cost_usd))
        n_prompts = self._sums.n_prompts[: len(stakes)]
        cost_weight = shared_cost_weight(self._fit, plan, stakes, n_prompts)
        policy = replace(plan.policy, budget_usd=None, cost_weight=cost_weight)
        return plan._replace(policy=policy)

    def _cost_of(self, position: int) -> NDArray[np.float64] | None:
        if self._plan.costs is None:
            return None
        return mean_cost(self._cost_usd[position], int(self._sums.n_prompts[position]))

    def _positions(self, groups: Any, n_prompts: int) -> NDArray[np.int64]:
        if isinstance(groups, str) or not hasattr(groups, "__len__"):
            found = "a single string" if isinstance(groups, str) else type(groups).__name__
            raise TypeError(f"groups must be a list of names, got {found}")
        if len(groups) != n_prompts:
            raise ValueError(f"{len(groups)} groups came with {n_prompts} prompts")
        names = groups.tolist() if isinstance(groups, np.ndarray) else groups
        for i, name in enumerate(names):
            if name is None or name != name:
                raise ValueError(f"groups must have a name for every prompt, got {name} at {i}")
        known = self._position
        return np.array([known.setdefault(name, len(known)) for name in names], np.int64)

    def _add(
        self,
        position: NDArray[np.int64],
        rows: NDArray[np.float32],
        prompts: Sequence[str] | None,
        tokens: NDArray[np.integer] | None,
    ) -> None:
        settings = self._fit.settings
        found = self._index.search(rows, max(settings.k, settings.kappa))
        order = np.argsort(position, kind="stable")
        tasks, counts = np.unique(position, return_counts=True)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        by_task = Neighbours(found.ids[order], found.similarities[order])
        part = sums_of_tasks(self._fit, by_task, offsets, rows[order], threads=self._index.threads)
        self._make_room(int(tasks[-1]) + 1)
        sums: tuple[NDArray[Any], ...] = self._sums
        for total, some in zip(sums, part, strict=True):
            total[tasks] += some
        costs = self._plan.costs_of_prompts(found.ids, prompts, tokens, self._index.threads)
        if costs is not None:
            in_order = costs[order].astype(np.float64)
            self._cost_usd[tasks] += np.add.reduceat(in_order, offsets[:-1], axis=0)

    def _make_room(self, n_tasks: int) -> None:
        room = len(self._sums.n_prompts)
        if n_tasks > room:
            more = no_sums(self._fit, max(n_tasks, 2 * room) - room)
            self._sums = TaskSums(
                *(np.concatenate(pair) for pair in zip(self._sums, more, strict=True))
            )
            more_usd = np.zeros((len(more.n_prompts), self._cost_usd.shape[1]))
            self._cost_usd = np.concatenate((self._cost_usd, more_usd))
