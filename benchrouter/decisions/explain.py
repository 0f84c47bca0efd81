"""Why a prompt goes where it goes: its neighbours, and every model's score and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation, Neighbour
from benchrouter.decisions.backend import Scored
from benchrouter.decisions.costs.reasons import utility_of, why
from benchrouter.decisions.costs.sources import costs_of
from benchrouter.decisions.costs.weighing import Weighing
from benchrouter.decisions.plan import AMONG, Plan
from benchrouter.decisions.rules import Rules
from benchrouter.files.arrays import Array, Ids, Rows
from benchrouter.scores import formulas
from benchrouter.scores.expected.prompt_scores import reason_of
from benchrouter.scores.fitted import Fit
from benchrouter.votes.outcomes import unpack
from benchrouter.votes.votes import votes

SHOWN = 10  # neighbours of an explanation by the rule "auto", of up to 32 that vote


class _Choice(NamedTuple):
    """The model chosen for the prompt, and what costs had to do with it."""

    model: int
    score: float
    margin: float
    reason: str
    cost_usd: Array | None
    no_cost: str | None = None
    utility: Array | None = None
    chance: Array | None = None
    over_limit: bool | None = None


class _Expected(NamedTuple):
    """What the rule "auto" tells beside the scores."""

    standing: Array | None = None
    pulls: dict[str, Array] | None = None
    strange: float | None = None
    chance: Array | None = None
    chance_low: Array | None = None
    chance_high: Array | None = None


def explain(
    rules: Rules,
    row: Rows,
    scored: Scored,
    plan: Plan,
    weighing: Weighing | None,
    *,
    prompt: str | None,
    tokens: NDArray[np.integer] | None,
    threads: int = 0,
) -> Explanation:
    """Explain the decision on one prompt.

    Parameters
    ----------
    rules : Rules
    row : float32 array, shape (1, dim)
        Its embedding.
    scored : Scored
        Of the prompt.
    plan : Plan
    weighing : Weighing or None
        Of the plan; None where costs do not count. They are told then where they are known.
    prompt : str, optional
    tokens : int array, shape (1,), or None
        Of the prompt, instead of an estimate.
    threads : int
        0 = all.

    Raises
    ------
    TypeError, ValueError
        If tokens are needed and missing, or invalid.
    """
    fit, chosen = rules.fit, scored.chosen
    voting = np.ascontiguousarray(scored.neighbours.ids[:, : plan.k])
    voters = voting[0][voting[0] >= 0]
    outcomes, prior, _ = rules.voting(plan.rule)
    support = votes(voting, outcomes, prior=prior, threads=threads).support
    prompts = None if prompt is None else [prompt]
    if weighing is None:
        choice = _by_score(rules, scored, plan, voting, prompts, tokens, threads)
    else:
        choice = _by_cost(rules, scored, plan, weighing, prompts, tokens)
    expected = _expected(fit, row, scored, voters)
    shown = voters[:SHOWN] if plan.rule == "auto" else voters
    return Explanation(
        prompt=prompt,
        rule=plan.rule,
        model=fit.models[choice.model],
        reason=choice.reason,
        score=choice.score,
        margin=choice.margin,
        distance=float(chosen.distance[0]),
        fallback=bool(chosen.fallback[0]),
        models=fit.models,
        scores=scored.scores[0].astype(np.float64),
        support=support[0].astype(np.int64),
        neighbours=[
            _neighbour(fit, record, similarity, 1.0 / len(voters))
            for record, similarity in zip(
                shown.tolist(), scored.neighbours.similarities[0].tolist(), strict=False
            )
        ],
        n_voting=len(voters),
        cost_usd=choice.cost_usd,
        no_cost=choice.no_cost,
        utility=choice.utility,
        chance=expected.chance if choice.chance is None else choice.chance,
        chance_low=expected.chance_low,
        chance_high=expected.chance_high,
        standing=expected.standing,
        pulls=expected.pulls,
        strange=expected.strange,
        over_limit=choice.over_limit,
    )


def _by_score(
    rules: Rules,
    scored: Scored,
    plan: Plan,
    voting: Ids,
    prompts: Sequence[str] | None,
    tokens: NDArray[np.integer] | None,
    threads: int,
) -> _Choice:
    """The choice where cost only decides ties; costs are told where they are known."""
    fit, chosen = rules.fit, scored.chosen
    cost_usd, no_cost = None, None
    try:
        costs = costs_of(fit, plan.policy, plan.allowed)
        counts = costs.tokens(1, prompts, tokens)
    except ValueError as e:
        nothing = np.isnan(fit.cost_usd).all() and np.isnan(fit.prices).all()
        no_cost = None if nothing else str(e)
    else:
        cost_usd = costs.of_prompts(voting, counts, threads)[0].astype(np.float64)
    return _Choice(
        int(chosen.model[0]),
        float(chosen.score[0]),
        float(chosen.margin[0]),
        _reason(rules, scored, plan),
        cost_usd,
        no_cost,
    )


def _by_cost(
    rules: Rules,
    scored: Scored,
    plan: Plan,
    weighing: Weighing,
    prompts: Sequence[str] | None,
    tokens: NDArray[np.integer] | None,
) -> _Choice:
    """The choice where costs count."""
    policy, thin = plan.policy, bool(scored.chosen.fallback[0])
    block = weighing.block(scored, weighing.costs.tokens(1, prompts, tokens))
    weighed = weighing.weigh(block, policy.cost_weight or 0.0)
    decided = weighing.decided(block, weighed).chosen
    m, over_limit = int(weighed.model[0]), bool(weighed.over_limit[0])
    score, cost_usd = weighed.score[0], weighed.cost_usd[0]
    chance = None if weighed.chance is None else weighed.chance[0]
    reason = why(
        *(rules.fit.models[m], score[m], cost_usd[m], None if chance is None else chance[m]),
        *(policy, None if weighed.within is None else float(np.ravel(weighed.within)[0])),
        "standing on the benchmark" if thin else f"score under the rule {plan.rule!r}",
        over_limit,
    )
    if thin and not over_limit:
        own = _reason(rules, scored, plan)
        reason = f"{own}; of models no dearer than the fallback model, {reason}"
    return _Choice(
        m,
        float(decided.score[0]),
        float(decided.margin[0]),
        reason if plan.allowed.all() else reason + AMONG,
        cost_usd,
        utility=utility_of(score, cost_usd, policy),
        chance=chance,
        over_limit=over_limit,
    )


def _expected(fit: Fit, row: Rows, scored: Scored, voters: Ids) -> _Expected:
    if scored.strange is None:
        return _Expected()
    learnt, strange = fit.expectation, float(scored.strange[0])
    pulls = learnt.pulls(row[0], voters, fit.dataset, unpack(fit.raw, voters), strange)
    if learnt.calibration is None:
        return _Expected(learnt.standing, pulls, strange)
    chance = learnt.chance(scored.scores[0].astype(np.float64), scored.strange)
    low, high = learnt.interval(chance, scored.strange)
    return _Expected(learnt.standing, pulls, strange, chance, low, high)


def _reason(rules: Rules, scored: Scored, plan: Plan) -> str:
    """Why the model is chosen where cost only decides ties."""
    fit, chosen = rules.fit, scored.chosen
    counted = np.where(plan.allowed, scored.scores[0].astype(np.float64), -np.inf)
    best = fit.models[formulas.best_model(counted, fit.preferred)]
    if chosen.fallback[0]:
        distance = float(chosen.distance[0])
        if distance <= fit.distance_limit:
            return "no neighbour of the prompt has a score"
        return (
            f"the prompt's distance {distance:.3f} lies beyond {fit.distance_limit:.3f}, the 99th "
            "percentile of the benchmark's own held-out prompts (the largest score was "
            f"{best}'s)"
        )
    of = "" if plan.allowed.all() else AMONG
    if scored.strange is None:
        return f"{best} has the largest score under the rule {plan.rule!r}{of}"
    model, home = int(chosen.model[0]), rules.home(plan.allowed)
    strange = float(scored.strange[0])
    return reason_of(fit.expectation, fit.models, model, home, counted, strange) + of


def _neighbour(fit: Fit, record: int, similarity: float, weight: float) -> Neighbour:
    row = unpack(fit.raw, np.array([record]))[0].tolist()
    return Neighbour(
        dataset=fit.datasets[fit.dataset[record]],
        sample_id=fit.sample_ids[record],
        prompt=fit.prompts[record],
        similarity=similarity,
        weight=weight,
        scores={
            name: None if np.isnan(value) else value
            for name, value in zip(fit.models, row, strict=True)
        },
    )
