"""The rules for single prompts under a cost policy: neighbours to votes and costs to a decision.

Prompts are decided in blocks, so that no (prompts × models) array of a whole batch is ever held,
but for a budget, which takes a search of λ over all prompts: what is kept of each for it are the
neighbours that vote and the models' scores, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation
from benchrouter.decisions.costs.cost_policy import (
    CostPolicy,
    CostSource,
    choose,
    cost_weight_within,
    estimate_tokens,
    price_of,
    prices_of,
    source_of,
)
from benchrouter.decisions.costs.cost_reasons import reason_of, utility_of
from benchrouter.decisions.costs.isotonic import Calibration, isotonic
from benchrouter.decisions.ranking import scores_and_margins
from benchrouter.decisions.rules import AMONG, BLOCK, Rule, Rules, Scored
from benchrouter.files.arrays import Array
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.expected.prompt_scores import Success
from benchrouter.scores.fitted import Fit
from benchrouter.scores.held_out import sample_of, without_prompt
from benchrouter.votes.outcomes import Chosen, unpack
from benchrouter.votes.votes import votes

CELLS = 1 << 20  # prompts × models of a block: 8 MiB of float64
SAME_PROMPTS = 8  # so many neighbours may be the prompt itself

Batch = tuple[Sequence[str] | None, NDArray[np.float32], NDArray[np.integer] | None]


class Priced(NamedTuple):
    """Decisions under a policy, with what they are expected to cost."""

    chosen: Chosen
    """Arrays of shape (n_prompts,)."""
    cost_usd: NDArray[np.float32]
    """float32, same shape: expected cost of the chosen model."""
    over_limit: NDArray[np.bool_]
    """bool, same shape: whether the cheapest model costs more than `max_cost_usd`."""
    success: Success | None
    """As in `Decided`."""


class _Block(NamedTuple):
    """What some prompts need to be decided at any λ."""

    voting: NDArray[np.int64]
    plain: Chosen  # without a policy: its distance and fallback hold with one
    scored: Scored
    tokens: NDArray[np.integer] | None


class _Weighed(NamedTuple):
    """What decides on a block at some λ, arrays of shape (n_prompts, n_models) and (n_prompts,)."""

    predicted: NDArray[np.float32]
    score: Array
    """What counts in place of it: where evidence is too thin, the standing."""
    cost_usd: Array
    limit_usd: Array
    chance: Array | None
    within: Array | float | None
    model: NDArray[np.int32]
    over_limit: NDArray[np.bool_]


class _Plan(NamedTuple):
    """What is the same for all prompts of a call."""

    rule: Rule
    k: int
    policy: CostPolicy
    source: CostSource
    prices: Array
    allowed: NDArray[np.bool_]
    """bool, shape (n_models,): models that may be chosen."""


class CostRules:
    """The rules of one benchmark under cost policies.

    Parameters
    ----------
    rules : Rules
    """

    def __init__(self, rules: Rules) -> None:
        self._fit = rules.fit
        self._index = rules.index
        self._rules = rules
        self._calibrations: dict[tuple[Rule, int], Calibration] = {}

    def decide(
        self,
        rows: NDArray[np.float32],
        prompts: Sequence[str] | None,
        rule: Rule,
        k: int | None,
        policy: CostPolicy,
        tokens: NDArray[np.integer] | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Priced:
        """Choose a model for every prompt.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        prompts : sequence of str, optional
            Their tokens are estimated where costs are prices × tokens.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
            Neighbours that vote, instead of the fit's.
        policy : CostPolicy
        tokens : int array, shape (n_prompts,), optional
            Tokens of the prompts, instead of an estimate.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        Priced
            Arrays of shape (n_prompts,).

        Raises
        ------
        TypeError, ValueError
            If the rule or k is none, the benchmark does not offer the rule, a cost that is needed
            is not known, or the budget is below what the cheapest models cost.
        """
        plan = self._plan(rule, k, policy, allowed)
        blocks: Iterable[_Block] = self._blocks(rows, prompts, tokens, plan)
        cost_weight = policy.cost_weight or 0.0
        if policy.budget_usd is not None:
            blocks = list(blocks)
            cost_weight = self._cost_weight(blocks, plan)
        parts = [self._decide(block, plan, cost_weight) for block in blocks]
        return _together(parts)

    def cost_weight(
        self,
        batches: Iterable[Batch],
        rule: Rule,
        k: int | None,
        policy: CostPolicy,
        allowed: NDArray[np.bool_] | None = None,
    ) -> float:
        """Find the λ of a budget for prompts that come in batches.

        Parameters
        ----------
        batches : iterable of (prompts or None, float32 array of unit rows, tokens or None)
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
        policy : CostPolicy
            With a budget.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        float
            In score per US$.

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does.
        """
        plan = self._plan(rule, k, policy, allowed)
        blocks = [
            block
            for prompts, rows, tokens in batches
            for block in self._blocks(rows, prompts, tokens, plan)
        ]
        return self._cost_weight(blocks, plan)

    def rank(
        self,
        rows: NDArray[np.float32],
        prompts: Sequence[str] | None,
        rule: Rule,
        k: int | None,
        policy: CostPolicy,
        tokens: NDArray[np.integer] | None,
        allowed: NDArray[np.bool_],
    ) -> tuple[Priced, NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Order models: each is the one to choose were those before it not allowed.

        Parameters
        ----------
        rows, prompts, rule, k, policy, tokens
            As in :meth:`decide`; a policy without a budget.
        allowed : bool array, shape (n_models,)
            Models that may be chosen, at least one.

        Returns
        -------
        priced : Priced
            Arrays of shape (n_prompts,).
        scores, cost_usd : float32 arrays, shape (n_prompts, n_models)
        order : int32 array, shape (n_prompts, n_allowed)

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does, and if the policy has a budget.
        """
        if policy.budget_usd is not None:
            raise ValueError("budget_usd is for all prompts together, and these come one by one")
        plan = self._plan(rule, k, policy, allowed)
        n_models, weight = len(self._fit.models), policy.cost_weight or 0.0
        parts: list[Priced] = []
        scores = np.empty((len(rows), n_models), np.float32)
        cost_usd = np.empty_like(scores)
        order = np.empty((len(rows), int(allowed.sum())), np.int32)
        start = 0
        for block in self._blocks(rows, prompts, tokens, plan):
            weighed = self._choose(block, plan, weight)
            parts.append(self._priced(block, weighed, allowed))
            here = slice(start, start + len(block.voting))
            scores[here], cost_usd[here] = weighed.predicted, weighed.cost_usd
            order[here] = self._order(weighed, policy, weight, allowed)
            start = here.stop
        return _together(parts), scores, cost_usd, order

    def _order(
        self, weighed: _Weighed, policy: CostPolicy, cost_weight: float, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """Models by repeated choice, shape (n_prompts, n_allowed)."""
        here = np.arange(len(weighed.model))
        left = np.tile(allowed, (len(here), 1))
        chosen = [weighed.model]
        for _ in range(int(allowed.sum()) - 1):
            left[here, chosen[-1]] = False
            cheapest = np.where(left, weighed.cost_usd, np.inf).min(axis=1)
            limit = np.maximum(weighed.limit_usd, cheapest)
            chosen.append(
                choose(
                    *(weighed.score, weighed.cost_usd, limit, self._fit.preferred, policy),
                    *(cost_weight, weighed.chance, left, weighed.within),
                )
            )
        return np.stack(chosen, axis=1)

    def explain(
        self,
        plain: Explanation,
        row: NDArray[np.float32],
        k: int | None,
        policy: CostPolicy | None,
        tokens: int | None,
        allowed: NDArray[np.bool_],
    ) -> Explanation:
        """Add costs to an explanation, and decide anew under a policy.

        Parameters
        ----------
        plain : Explanation
            Without costs.
        row : float32 array, shape (1, dim)
            The prompt's embedding.
        k : int, optional
        policy : CostPolicy, optional
            Without one costs are only told, where they are known of every model.
        tokens : int, optional
            Of the prompt, instead of an estimate.
        allowed : bool array, shape (n_models,)
            Models that may be chosen, at least one; as in the explanation.

        Returns
        -------
        Explanation

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does, and if the policy has a budget.
        """
        if policy is not None and policy.budget_usd is not None:
            raise ValueError(
                "budget_usd is for all prompts together, this is one: find the cost weight of all "
                "(find_cost_weight), and explain by that"
            )
        rule: Rule = plain.rule  # type: ignore[assignment]
        prompts = None if plain.prompt is None else [plain.prompt]
        counts = None if tokens is None else np.array([tokens])
        asked = policy or CostPolicy()
        try:
            plan = self._plan(rule, k, asked, allowed)
            (block,) = self._blocks(row, prompts, counts, plan)
        except ValueError as e:
            if policy is not None:
                raise
            nothing = np.isnan(self._fit.cost_usd).all() and np.isnan(self._fit.prices).all()
            return plain if nothing else replace(plain, no_cost=str(e))
        weighed = self._choose(block, plan, asked.cost_weight or 0.0)
        if policy is None:
            return replace(plain, cost_usd=weighed.cost_usd[0])
        decided = self._priced(block, weighed, allowed)
        score, cost, m = weighed.score[0], weighed.cost_usd[0], int(weighed.model[0])
        chance = plain.chance if weighed.chance is None else weighed.chance[0]
        over_limit = bool(weighed.over_limit[0])
        within = None if weighed.within is None else float(np.ravel(weighed.within)[0])
        reason = reason_of(plain, score, cost, chance, m, policy, within, over_limit)
        return replace(
            plain,
            model=plain.models[m],
            reason=reason if allowed.all() else reason + AMONG,
            score=float(decided.chosen.score[0]),
            margin=float(decided.chosen.margin[0]),
            cost_usd=cost,
            utility=utility_of(score, cost, policy),
            chance=chance,
            over_limit=over_limit,
        )

    def check(
        self,
        rule: Rule,
        k: int | None,
        policy: CostPolicy,
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:
        """Refuse a policy that the benchmark does not offer.

        Parameters
        ----------
        rule, k, policy, allowed
            As in :meth:`decide`.

        Raises
        ------
        TypeError, ValueError
            As :meth:`decide` does.
        """
        self._plan(rule, k, policy, allowed)

    def is_calibrated(self, rule: Rule, k: int | None, policy: CostPolicy) -> bool:
        """Whether the chances of success that a policy asks for are known, or it asks for none."""
        k = self._rules.check(rule, k)
        return policy.min_success is None or rule == "auto" or (rule, k) in self._calibrations

    def _plan(
        self,
        rule: Rule,
        k: int | None,
        policy: CostPolicy,
        allowed: NDArray[np.bool_] | None,
    ) -> _Plan:
        k = self._rules.check(rule, k)
        fit = self._fit
        if allowed is None:
            allowed = np.ones(len(fit.models), np.bool_)
        if policy.within == "auto" and rule != "auto":
            raise ValueError(f"within='auto' goes with the rule 'auto', got the rule {rule!r}")
        prices, source = costs_of(fit, policy, allowed)
        if policy.min_success is not None and fit.correct is None:
            raise ValueError(
                "min_success needs to know what is correct: a dataset of this benchmark has no "
                "threshold (--correct-above); use within or a cost weight"
            )
        return _Plan(rule, k, policy, source, prices, allowed)

    def _blocks(
        self,
        rows: NDArray[np.float32],
        prompts: Sequence[str] | None,
        tokens: NDArray[np.integer] | None,
        plan: _Plan,
    ) -> Iterator[_Block]:
        """Search, block by block."""
        tokens = tokens_of(len(rows), prompts, tokens) if plan.source == "prices" else None
        size = max(1, min(BLOCK, CELLS // len(self._fit.models)))
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            depth = max(plan.k, self._fit.settings.kappa)
            neighbours = self._index.search(rows[block], depth)
            asked = rows[block], neighbours, plan.rule, plan.k
            plain, scored = self._rules.decide_and_score(*asked, plan.allowed)
            voting = np.ascontiguousarray(neighbours.ids[:, : plan.k])
            yield _Block(voting, plain, scored, None if tokens is None else tokens[block])

    def _decide(self, block: _Block, plan: _Plan, cost_weight: float) -> Priced:
        return self._priced(block, self._choose(block, plan, cost_weight), plan.allowed)

    def _priced(self, block: _Block, weighed: _Weighed, allowed: NDArray[np.bool_]) -> Priced:
        model, plain = weighed.model, block.plain
        score, margin = scores_and_margins(weighed.predicted, model, allowed)
        return Priced(
            Chosen(model, score, margin, plain.distance, plain.fallback),
            weighed.cost_usd[np.arange(len(model)), model].astype(np.float32),
            weighed.over_limit,
            self._rules.success(score, block.scored.strange),
        )

    def _choose(self, block: _Block, plan: _Plan, cost_weight: float) -> _Weighed:
        """Predicted scores, expected costs, the models chosen, and where none is within the limit.

        Where evidence is too thin, no model dearer than the fallback model is allowed: it is
        answered unless money has a price, and then only a cheaper model can take its place. Where
        it is not allowed, the one of the best standing takes its part.
        """
        policy, allowed, at = plan.policy, plan.allowed, block.plain.fallback
        cost = self._cost_of(block, plan).astype(np.float64)
        cheapest = np.where(allowed, cost, np.inf).min(axis=1)
        cap = math.inf if policy.max_cost_usd is None else as_float32(policy.max_cost_usd)
        limit = np.maximum(cap, cheapest)
        score = self._rules.counted(block.scored, at, plan.rule, allowed)
        if at.any():
            fallback = self._rules.fallback(plan.rule, allowed)
            limit[at] = np.minimum(limit[at], cost[at, fallback])
        chance = self._chance(block.scored, score, plan)
        within = self._within(block.scored, plan)
        model = choose(
            *(score, cost, limit, self._fit.preferred, policy),
            *(cost_weight, chance, allowed, within),
        )
        return _Weighed(
            block.scored.scores, score, cost, limit, chance, within, model, cheapest > cap
        )

    def _chance(self, scored: Scored, score: Array, plan: _Plan) -> Array | None:
        """Chances of success, where the policy asks for them.

        By the rule "auto" those that decisions tell, at the expected scores; by other rules at what
        counts as scores.
        """
        if plan.policy.min_success is None:
            return None
        if scored.strange is not None:
            return self._fit.expectation.chance(scored.scores, scored.strange[:, None])
        return self._calibration(plan.rule, plan.k)(score)

    def _within(self, scored: Scored, plan: _Plan) -> Array | float | None:
        """How far below the best score a cheaper model may lie, of every prompt."""
        within, policy = plan.policy.within, plan.policy
        if within == "auto" or (scored.strange is not None and not policy.has_objective):
            assert scored.strange is not None
            learnt = self._fit.expectation
            return learnt.kind(learnt.tolerance, scored.strange)[:, None]
        return within

    def _cost_of(self, block: _Block, plan: _Plan) -> NDArray[np.float32]:
        """Expected cost of every model on every prompt, shape (n_prompts, n_models)."""
        policy, source, prices = plan.policy, plan.source, plan.prices
        return costs_of_prompts(
            *(self._fit, policy, source, prices, block.voting, block.tokens, self._index.threads)
        )

    def _cost_weight(self, blocks: Sequence[_Block], plan: _Plan) -> float:
        def total_usd(cost_weight: float) -> float:
            total = 0.0
            for block in blocks:
                weighed = self._choose(block, plan, cost_weight)
                here = np.arange(len(weighed.model))
                total += float(weighed.cost_usd[here, weighed.model].sum())
            return total

        budget_usd = plan.policy.budget_usd
        if budget_usd is None:
            raise ValueError("a cost weight is found for a budget, the policy has none: budget_usd")
        n_prompts = sum(len(block.voting) for block in blocks)
        return cost_weight_within(budget_usd, total_usd, n_prompts)

    def _calibration(self, rule: Rule, k: int) -> Calibration:
        """Chance of success at a score, by the benchmark's records, each held out; kept."""
        if (rule, k) not in self._calibrations:
            self._calibrations[rule, k] = isotonic(*self._held_out_pairs(rule, k))
        return self._calibrations[rule, k]

    def _held_out_pairs(
        self, rule: Rule, k: int
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Predicted scores of records from all other records, and their correctness.

        Holding out whole datasets, as for p̂, would calibrate for prompts of kinds that the
        benchmark does not have, and be far from sure enough for those of kinds that it has.
        """
        fit, depth = self._fit, max(k, self._fit.settings.kappa)
        rows = self._sample()
        queries = np.ascontiguousarray(fit.embeddings[rows])
        found = without_prompt(self._index.search(queries, depth + SAME_PROMPTS), rows, depth)
        known = (found.ids >= 0).any(axis=1)
        found = Neighbours(found.ids[known], found.similarities[known])
        distance = formulas.prompt_distances(found.similarities).astype(np.float32)
        scored = self._rules.scores_of_models(queries[known], found, rule, k, distance)
        assert fit.correct is not None
        return scored.scores.ravel(), unpack(fit.correct, rows[known]).ravel()

    def _sample(self) -> NDArray[np.int64]:
        """All records, or in a large benchmark some of every dataset."""
        dataset, seed = self._fit.dataset, self._fit.settings.seed
        codes = range(len(self._fit.datasets))
        return np.sort(np.concatenate([sample_of(dataset, code, seed) for code in codes]))


def costs_of(fit: Fit, policy: CostPolicy, allowed: NDArray[np.bool_]) -> tuple[Array, CostSource]:
    """Find the prices that count, and where the costs of the models allowed come from.

    Parameters
    ----------
    fit : Fit
    policy : CostPolicy
    allowed : bool array, shape (n_models,)
        Models that may be chosen; the costs of the others may be unknown.

    Returns
    -------
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.
    source : "records", "models" or "prices"

    Raises
    ------
    ValueError
        Naming the models whose cost is not known, or what else is missing.
    """
    prices = prices_of(policy, fit.models, fit.prices)
    names = [fit.models[m] for m in np.flatnonzero(allowed)]
    has_records = fit.record_cost_usd is not None
    source = source_of(policy, names, fit.cost_usd[allowed], prices[allowed], has_records)
    return prices, source


def costs_of_prompts(
    fit: Fit,
    policy: CostPolicy,
    source: CostSource,
    prices: Array,
    voting: NDArray[np.int64],
    tokens: NDArray[np.integer] | None,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Expected cost of every model on every prompt.

    Parameters
    ----------
    fit : Fit
    policy : CostPolicy
    source, prices
        As :func:`costs_of` gives them.
    voting : int64 array, shape (n_prompts, k)
        The neighbours that vote, −1 = none.
    tokens : int array, shape (n_prompts,), or None
        Of the prompts, where costs are prices × tokens.
    threads : int
        0 = all.

    Returns
    -------
    float32 array, shape (n_prompts, n_models)
        US$; NaN = unknown.
    """
    if source == "prices" and tokens is not None:
        return price_of(prices, tokens, policy.output_tokens or 0.0).astype(np.float32)
    if source == "records" and fit.record_cost_usd is not None:
        return neighbours_cost_usd(voting, fit.record_cost_usd, fit.cost_usd, threads)
    return np.broadcast_to(fit.cost_usd.astype(np.float32), (len(voting), len(fit.models)))


def neighbours_cost_usd(
    voting: NDArray[np.int64],
    record_cost_usd: NDArray[np.float32],
    mean_cost_usd: Array,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Expected cost by records: the neighbours' mean, drawn by one pseudo-record to the model's.

    Parameters
    ----------
    voting : int64 array, shape (n_prompts, k)
        The neighbours that vote, −1 = none.
    record_cost_usd : float32 array, shape (n_records, n_models)
        NaN = unknown.
    mean_cost_usd : float64 array, shape (n_models,)
        NaN = unknown.
    threads : int
        0 = all.

    Returns
    -------
    float32 array, shape (n_prompts, n_models)
        US$; NaN for a model without any recorded cost.
    """
    mean = mean_cost_usd.astype(np.float32)
    known = np.where(np.isnan(mean), np.float32(0), mean)
    found = votes(voting, record_cost_usd, prior=known, prior_weight=1.0, threads=threads).votes
    found[:, np.isnan(mean)] = np.nan
    return found


def _together(parts: Sequence[Priced]) -> Priced:
    if not parts:
        none, flags = np.empty(0, np.float32), np.empty(0, np.bool_)
        return Priced(Chosen(np.empty(0, np.int32), none, none, none, flags), none, flags, None)
    successes = [part.success for part in parts if part.success is not None]
    return Priced(
        Chosen(*map(np.concatenate, zip(*(part.chosen for part in parts), strict=True))),
        np.concatenate([part.cost_usd for part in parts]),
        np.concatenate([part.over_limit for part in parts]),
        Success(*map(np.concatenate, zip(*successes, strict=True))) if successes else None,
    )


def as_float32(value: float) -> float:
    """Round as costs are, so that a model that costs 0.1 is not above a limit of 0.1.

    Parameters
    ----------
    value : float
    """
    return float(np.float32(min(value, float(np.finfo(np.float32).max))))


def tokens_of(
    n_prompts: int, prompts: Sequence[str] | None, tokens: NDArray[np.integer] | None
) -> NDArray[np.integer]:
    """Tokens as they were given, checked, or estimated.

    Parameters
    ----------
    n_prompts : int
    prompts : sequence of str, optional
    tokens : int array, shape (n_prompts,), optional

    Returns
    -------
    int array, shape (n_prompts,)

    Raises
    ------
    TypeError, ValueError
        If both are missing, or the tokens are invalid.
    """
    if tokens is None:
        if prompts is None:
            raise ValueError(
                "costs are prices × tokens here: pass tokens, or the prompts with their embeddings"
            )
        return estimate_tokens(prompts)
    if not isinstance(tokens, np.ndarray) or not np.issubdtype(tokens.dtype, np.integer):
        found = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"tokens must be an array of integers, got {found}")
    if tokens.shape != (n_prompts,):
        raise ValueError(f"tokens have shape {tokens.shape}, expected ({n_prompts},)")
    if len(tokens) and tokens.min() < 0:
        raise ValueError(f"tokens must be at least 0, got {tokens.min()}")
    return tokens
