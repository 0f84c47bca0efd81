"""What a router decides by: one benchmark, searched on one device, under any policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions, Explanation
from benchrouter.decisions.backend import BLOCK, Backend, Decided
from benchrouter.decisions.costs.calibrations import Calibrations
from benchrouter.decisions.costs.weighing import Block, Weighing, together
from benchrouter.decisions.explain import explain
from benchrouter.decisions.on_cpu import OnCpu
from benchrouter.decisions.plan import Plan, plan_of
from benchrouter.decisions.policy import Policy
from benchrouter.decisions.ranking import Ranking, order_of
from benchrouter.decisions.rules import Rules
from benchrouter.embeddings.of_prompts import UnitRows, on_host
from benchrouter.neighbours.index import Index
from benchrouter.scores.fitted import Fit

Batch = tuple[Sequence[str] | None, UnitRows, NDArray[np.integer] | None]


class Decider:
    """Decides on prompts whose embeddings are known. Safe to use from many threads.

    Rows may lie in the host's memory or on a device; those that lie elsewhere than the benchmark
    are copied there. Every answer lies in the host's memory.

    Parameters
    ----------
    fit : Fit
    device : str
        Where records are searched and prompts scored: "cpu" or "cuda:N".
    threads : int
        Of the CPU, 0 = all.

    Attributes
    ----------
    fit : Fit
    index : Index
        Searches the records on the CPU, for tasks.
    backend : Backend
        Searches them on the device, for prompts.

    Raises
    ------
    NoCudaKernels
        If the extension was built without CUDA, and the device is not the CPU.
    """

    def __init__(self, fit: Fit, *, device: str = "cpu", threads: int = 0) -> None:
        approximate = None if fit.approximation is None else fit.approximation.index
        self.fit = fit
        self.index = Index(fit.embeddings, threads=threads, verify=False, approximate=approximate)
        rules = Rules(fit)
        self.backend = _backend_of(rules, self.index, device)
        self.calibrations = Calibrations(OnCpu(rules, self.index))
        self._last: Plan | None = None

    def on(self, device: str) -> Decider:
        """Make the same on another device; both share what lies in the host's memory.

        Parameters
        ----------
        device : str
            "cpu" or "cuda:N".
        """
        found = copy(self)
        found.backend = _backend_of(self.backend.rules, self.index, device)
        return found

    def check(self, policy: Policy) -> None:
        """Refuse a policy that the benchmark does not offer.

        Raises
        ------
        ValueError
            Naming what it lacks.
        """
        plan_of(self.fit, policy)

    def is_calibrated(self, policy: Policy) -> bool:
        """Whether decisions can begin at once.

        By the rules other than "auto" the first decisions with `min_success` wait until the
        benchmark's records have been predicted from each other.

        Raises
        ------
        ValueError
            If the benchmark does not offer the policy's rule.
        """
        return self.calibrations.has(policy)

    def decide(
        self,
        rows: UnitRows,
        policy: Policy,
        prompts: Sequence[str] | None = None,
        tokens: NDArray[np.integer] | None = None,
    ) -> Decisions:
        """Choose a model for every prompt.

        Parameters
        ----------
        rows : float32 array or torch.Tensor, shape (n_prompts, dim)
            Unit rows.
        policy : Policy
        prompts : sequence of str, optional
            Their tokens are estimated where costs are prices × tokens.
        tokens : int array, shape (n_prompts,), optional
            Instead of an estimate.

        Raises
        ------
        TypeError, ValueError
            As :meth:`check` does; if tokens are needed and missing, or invalid; if a budget is
            below what the cheapest models cost.
        """
        plan = self._plan(policy)
        weighing = self._weighing(plan)
        if weighing is None:
            return self._decisions(self.backend.decide(rows, plan))
        blocks: Iterable[Block] = weighing.blocks(rows, prompts, tokens)
        cost_weight = policy.cost_weight or 0.0
        if policy.budget_usd is not None:
            blocks = list(blocks)
            cost_weight = weighing.cost_weight(blocks)
        parts = [weighing.decided(block, weighing.weigh(block, cost_weight)) for block in blocks]
        return self._decisions(together(parts))

    def rank(
        self,
        rows: UnitRows,
        policy: Policy,
        prompts: Sequence[str] | None = None,
        tokens: NDArray[np.integer] | None = None,
    ) -> Ranking:
        """Choose a model for every prompt, and order all models by what would be chosen next.

        Parameters
        ----------
        rows, policy, prompts, tokens
            As in :meth:`decide`; a policy without a budget.

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does, and if the policy has a budget.
        """
        policy.refuse_budget("and these come one by one")
        plan = self._plan(policy)
        n, n_models = len(rows), len(self.fit.models)
        scores = np.empty((n, n_models), np.float32)
        order = np.empty((n, int(plan.allowed.sum())), np.int32)
        parts: list[Decided] = []
        weighing = self._weighing(plan)
        if weighing is None:
            for start in range(0, max(n, 1), BLOCK):
                here = slice(start, start + BLOCK)
                scored = self.backend.score(rows[here], plan)
                success = self.backend.rules.success(scored.chosen.score, scored.strange)
                parts.append(Decided(scored.chosen, success))
                scores[here] = scored.scores
                order[here] = order_of(self.backend.rules, scored, plan)
            return Ranking(self._decisions(together(parts)), scores, order)
        cost_usd, start = np.empty_like(scores), 0
        for block in weighing.blocks(rows, prompts, tokens):
            here = slice(start, start := start + len(block.voting))
            cost_weight = policy.cost_weight or 0.0
            weighed = weighing.weigh(block, cost_weight)
            parts.append(weighing.decided(block, weighed))
            scores[here], cost_usd[here] = block.scores, weighed.cost_usd
            order[here] = weighing.order(weighed, cost_weight)
        return Ranking(self._decisions(together(parts)), scores, order, cost_usd)

    def explain(
        self,
        row: UnitRows,
        policy: Policy,
        prompt: str | None = None,
        tokens: int | None = None,
    ) -> Explanation:
        """Show the neighbours that voted on a prompt, and every model's predicted score and cost.

        Parameters
        ----------
        row : float32 array or torch.Tensor, shape (1, dim)
            Its embedding.
        policy : Policy
            Without a budget. Models that it does not allow are shown all the same, and costs are
            told where they are known even if they do not count.
        prompt : str, optional
        tokens : int, optional
            Instead of an estimate.

        Raises
        ------
        TypeError, ValueError
            As :meth:`rank` does.
        """
        policy.refuse_budget("this is one")
        plan = plan_of(self.fit, policy)
        return explain(
            self.backend.rules,
            on_host(row),
            self.backend.score(row, plan),
            plan,
            self._weighing(plan),
            prompt=prompt,
            tokens=None if tokens is None else np.array([tokens]),
            threads=self.index.threads,
        )

    def cost_weight(self, batches: Iterable[Batch], policy: Policy) -> float:
        """Find the λ of a budget for prompts that come in batches.

        Parameters
        ----------
        batches : iterable of (prompts or None, unit rows, tokens or None)
        policy : Policy
            With a budget.

        Returns
        -------
        float
            In score per US$.

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does, and if there is no budget.
        """
        weighing = self._weighing(plan_of(self.fit, policy))
        if weighing is None:
            raise ValueError("a cost weight is found for a budget, the policy has none: budget_usd")
        blocks = [
            block
            for prompts, rows, tokens in batches
            for block in weighing.blocks(rows, prompts, tokens)
        ]
        return weighing.cost_weight(blocks)

    def _plan(self, policy: Policy) -> Plan:
        """The plan of a policy; the last one is kept."""
        last = self._last
        if last is not None and last.policy is policy and policy.prices is None:
            return last
        self._last = plan = plan_of(self.fit, policy)
        return plan

    def _weighing(self, plan: Plan) -> Weighing | None:
        """What weighs costs, None where they do not count."""
        if plan.costs is None:
            return None
        calibration, threads = self.calibrations.of(plan), self.index.threads
        return Weighing(self.backend, plan, plan.costs, calibration, threads)

    def _decisions(self, found: Decided) -> Decisions:
        costs = found.cost_usd, found.over_limit
        return Decisions(self.fit.models, *found.chosen, *costs, *(found.success or ()))


def _backend_of(rules: Rules, index: Index, device: str) -> Backend:
    """Choose what searches and scores, once for a router; torch is imported for a device alone."""
    if device == "cpu":
        return OnCpu(rules, index)
    from benchrouter.decisions.on_device import OnDevice

    return OnDevice(rules, device)
