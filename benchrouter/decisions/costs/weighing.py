"""Scores weighed against expected costs, block by block.

No array of shape (prompts, models) of a whole batch is held, but for a budget, which takes a search
of λ over all prompts: what is kept of each for it are the neighbours that vote and the models'
scores, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.backend import BLOCK, Backend, Decided, Scored
from benchrouter.decisions.costs.choice import as_float32, choose, cost_weight_within
from benchrouter.decisions.costs.isotonic import Isotonic
from benchrouter.decisions.costs.sources import Costs
from benchrouter.decisions.plan import Plan
from benchrouter.embeddings.of_prompts import UnitRows
from benchrouter.files.arrays import Array, Floats, Ids
from benchrouter.scores.expected.prompt_scores import Success
from benchrouter.votes.outcomes import Chosen

CELLS = 1 << 20  # prompts × models of a block: 8 MiB of float64


class Block(NamedTuple):
    """What some prompts need to be decided at any λ."""

    voting: Ids
    chosen: Chosen  # where cost does not count: its distance and fallback hold with costs, too
    scores: Floats
    strange: Floats | None
    tokens: NDArray[np.integer] | None


class Weighed(NamedTuple):
    """What decides on a block at some λ, arrays of shape (n_prompts, n_models) and (n_prompts,)."""

    score: Array
    """What counts: the predicted score, or where evidence is too thin, the standing."""
    cost_usd: Array
    limit_usd: Array
    """Dearer models are not allowed."""
    chance: Array | None
    """Of success, where the policy asks for it."""
    within: Array | float | None
    """How far below the best score a cheaper model may lie."""
    model: NDArray[np.int32]
    over_limit: NDArray[np.bool_]


class Weighing:
    """Decides on blocks of prompts under a policy by which costs count.

    Parameters
    ----------
    backend : Backend
    plan : Plan
    costs : Costs
        Of the plan.
    calibration : Isotonic or None
        Of scores by another rule than "auto", where the policy has `min_success`.
    threads : int
        0 = all.
    """

    def __init__(
        self,
        backend: Backend,
        plan: Plan,
        costs: Costs,
        calibration: Isotonic | None,
        threads: int,
    ) -> None:
        self.plan = plan
        self._backend = backend
        self._rules = backend.rules
        self.costs = costs
        self._calibration = calibration
        self._threads = threads

    def blocks(
        self,
        rows: UnitRows,
        prompts: Sequence[str] | None,
        tokens: NDArray[np.integer] | None,
    ) -> Iterator[Block]:
        """Search and score prompts, block by block.

        Parameters
        ----------
        rows : float32 array or torch.Tensor, shape (n_prompts, dim)
            Unit rows.
        prompts : sequence of str, optional
            Their tokens are estimated where costs are prices × tokens.
        tokens : int array, shape (n_prompts,), optional
            Instead of an estimate.

        Raises
        ------
        TypeError, ValueError
            If tokens are needed and missing, or invalid.
        """
        counts = self.costs.tokens(len(rows), prompts, tokens)
        size = max(1, min(BLOCK, CELLS // len(self._rules.fit.models)))
        for start in range(0, len(rows), size):
            here = slice(start, start + size)
            scored = self._backend.score(rows[here], self.plan)
            yield self.block(scored, None if counts is None else counts[here])

    def block(self, scored: Scored, tokens: NDArray[np.integer] | None) -> Block:
        """Keep what is needed of prompts that are scored."""
        voting = np.ascontiguousarray(scored.neighbours.ids[:, : self.plan.k])
        return Block(voting, scored.chosen, scored.scores, scored.strange, tokens)

    def cost_of(self, block: Block) -> Floats:
        """Expected cost of every model, float32, shape (n_prompts, n_models)."""
        return self.costs.of_prompts(block.voting, block.tokens, self._threads)

    def weigh(self, block: Block, cost_weight: float) -> Weighed:
        """Choose a model for every prompt of a block.

        Where evidence is too thin, no model dearer than the fallback model is allowed: it is
        answered unless money has a price, and then only a cheaper model can take its place. Where
        it is not allowed, the one of the best standing takes its part.
        """
        plan, thin = self.plan, block.chosen.fallback
        cost = self.cost_of(block).astype(np.float64)
        cheapest = np.where(plan.allowed, cost, np.inf).min(axis=1)
        most = plan.policy.max_cost_usd
        cap = math.inf if most is None else as_float32(most)
        limit = np.maximum(cap, cheapest)
        score = self._rules.counted(block.scores, block.strange, thin, plan)
        if thin.any():
            fallback = self._rules.fallback(plan.rule, plan.allowed)
            limit[thin] = np.minimum(limit[thin], cost[thin, fallback])
        chance = self._chance(block, score)
        within = self._within(block.strange)
        model = choose(
            *(score, cost, limit, self._rules.fit.preferred, plan.policy),
            *(cost_weight, chance, plan.allowed, within),
        )
        return Weighed(score, cost, limit, chance, within, model, cheapest > cap)

    def decided(self, block: Block, weighed: Weighed) -> Decided:
        """Tell what was chosen, by the scores that were predicted."""
        model = weighed.model
        score, margin = scores_and_margins(block.scores, model, self.plan.allowed)
        return Decided(
            Chosen(model, score, margin, block.chosen.distance, block.chosen.fallback),
            self._rules.success(score, block.strange),
            weighed.cost_usd[np.arange(len(model)), model].astype(np.float32),
            weighed.over_limit,
        )

    def order(self, weighed: Weighed, cost_weight: float) -> NDArray[np.int32]:
        """Models by repeated choice, shape (n_prompts, n_allowed)."""
        allowed, preferred = self.plan.allowed, self._rules.fit.preferred
        here = np.arange(len(weighed.model))
        left = np.tile(allowed, (len(here), 1))
        chosen = [weighed.model]
        for _ in range(int(allowed.sum()) - 1):
            left[here, chosen[-1]] = False
            cheapest = np.where(left, weighed.cost_usd, np.inf).min(axis=1)
            limit = np.maximum(weighed.limit_usd, cheapest)
            chosen.append(
                choose(
                    *(weighed.score, weighed.cost_usd, limit, preferred, self.plan.policy),
                    *(cost_weight, weighed.chance, left, weighed.within),
                )
            )
        return np.stack(chosen, axis=1)

    def cost_weight(self, blocks: Sequence[Block]) -> float:
        """Find the λ of the policy's budget.

        Parameters
        ----------
        blocks : sequence of Block
            All prompts.

        Returns
        -------
        float
            In score per US$.

        Raises
        ------
        ValueError
            If there is no budget, or it is below what the cheapest models cost.
        """

        def total_usd(cost_weight: float) -> float:
            total = 0.0
            for block in blocks:
                weighed = self.weigh(block, cost_weight)
                here = np.arange(len(weighed.model))
                total += float(weighed.cost_usd[here, weighed.model].sum())
            return total

        budget_usd = self.plan.policy.budget_usd
        if budget_usd is None:
            raise ValueError("a cost weight is found for a budget, the policy has none: budget_usd")
        n_prompts = sum(len(block.voting) for block in blocks)
        return cost_weight_within(budget_usd, total_usd, n_prompts)

    def _chance(self, block: Block, score: Array) -> Array | None:
        """Chances of success, where the policy asks for them.

        By the rule "auto" those that decisions tell, at the expected scores; by other rules at what
        counts as scores.
        """
        if self.plan.policy.min_success is None:
            return None
        if block.strange is not None:
            return self._rules.fit.expectation.chance(block.scores, block.strange[:, None])
        assert self._calibration is not None
        return self._calibration(score)

    def _within(self, strange: Floats | None) -> Array | float | None:
        """How far below the best score a cheaper model may lie, of every prompt."""
        within, policy = self.plan.policy.within, self.plan.policy
        if strange is not None and (within == "auto" or not policy.has_objective):
            learnt = self._rules.fit.expectation
            return learnt.kind(learnt.tolerance, strange)[:, None]
        assert within != "auto"  # the policy takes it with the rule "auto" alone
        return within


def together(parts: Sequence[Decided]) -> Decided:
    """Join decisions under a policy by which costs count."""
    if not parts:
        none, flags = np.empty(0, np.float32), np.empty(0, np.bool_)
        return Decided(Chosen(np.empty(0, np.int32), none, none, none, flags), None, none, flags)
    successes = [part.success for part in parts if part.success is not None]
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    limits = [part.over_limit for part in parts if part.over_limit is not None]
    return Decided(
        Chosen(*map(np.concatenate, zip(*(part.chosen for part in parts), strict=True))),
        Success(*map(np.concatenate, zip(*successes, strict=True))) if successes else None,
        np.concatenate(costs) if costs else None,
        np.concatenate(limits) if limits else None,
    )


def scores_and_margins(
    predicted: Floats, model: NDArray[np.int32], allowed: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Score of the chosen models, and how far above the best of the others it lies.

    Parameters
    ----------
    predicted : float32 array, shape (n_prompts, n_models)
    model : int32 array, shape (n_prompts,)
    allowed : bool array, shape (n_models,)
        The others.

    Returns
    -------
    score, margin : float32 arrays, shape (n_prompts,)
        The margin of an only model is 0.
    """
    here = np.arange(len(model))
    score = predicted[here, model]
    if allowed.sum() == 1:
        return score, np.zeros_like(score)
    others = np.where(allowed, predicted, np.float32(-np.inf))
    others[here, model] = -np.inf
    return score, score - others.max(axis=1)
