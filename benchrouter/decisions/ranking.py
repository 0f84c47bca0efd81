"""All models in the order in which they would be chosen: whom to ask when the first is down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions
from benchrouter.decisions.backend import Scored
from benchrouter.decisions.plan import Plan
from benchrouter.decisions.rules import Rules
from benchrouter.files.arrays import Floats


@dataclass(frozen=True)
class Ranking:
    """Decisions on prompts, and what would be chosen if the model chosen could not answer.

    Attributes
    ----------
    decisions : Decisions
        Arrays of shape (n_prompts,).
    scores : float32 array, shape (n_prompts, n_models)
        Predicted score of every model under the rule; NaN = nothing is known of it.
    order : int32 array, shape (n_prompts, n_allowed)
        Positions of the models allowed, best first; the first column is `decisions.model`.
    cost_usd : float32 array, shape (n_prompts, n_models), or None
        Expected cost of every model; None where costs do not count.
    """

    decisions: Decisions
    scores: NDArray[np.float32]
    order: NDArray[np.int32]
    cost_usd: NDArray[np.float32] | None = None


def order_of(rules: Rules, scored: Scored, plan: Plan) -> NDArray[np.int32]:
    """Order models where cost only decides ties.

    Returns
    -------
    int32 array, shape (n_prompts, n_allowed)
        By score, by the rule "auto" each the one to choose were those before it not allowed; on a
        fallback by standing. Ties as in decisions.
    """
    chosen, allowed = scored.chosen, plan.allowed
    counted = rules.counted(scored.scores, scored.strange, chosen.fallback, plan)
    counted = np.where(np.isnan(counted), -np.inf, counted)
    # The decision itself comes first, a fallback model included.
    counted[np.arange(len(counted)), chosen.model] = np.inf
    preferred = np.broadcast_to(rules.fit.preferred, counted.shape)
    ranked = np.lexsort((preferred, -counted), axis=1)
    order = ranked[allowed[ranked]].reshape(len(counted), int(allowed.sum())).astype(np.int32)
    certain = np.flatnonzero(~chosen.fallback)
    if scored.strange is not None and len(certain):
        of_certain = scored.scores[certain], scored.strange[certain]
        order[certain] = _by_repeated_choice(rules, *of_certain, allowed)
    return order


def _by_repeated_choice(
    rules: Rules, expected: Floats, strange: Floats, allowed: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Models as the rule "auto" would choose them one after another, as its kernel decides."""
    fit, here = rules.fit, np.arange(len(expected))
    learnt, rank = fit.expectation, np.empty(len(fit.models), np.intp)
    rank[np.lexsort((fit.preferred, -fit.raw_prior))] = np.arange(len(rank))
    rank[rules.home(None)] = -1
    margin = learnt.kind(learnt.margin, strange)
    tolerance = learnt.kind(learnt.tolerance, strange) if fit.costs_known else np.zeros(len(here))
    left = np.tile(allowed, (len(here), 1))
    order = np.empty((len(here), int(allowed.sum())), np.int32)
    for place in range(order.shape[1]):
        home = np.where(left, rank, len(rank)).argmin(axis=1)
        score = np.where(left, expected, np.float32(-np.inf))
        own = score[here, home]
        leads = score >= (own + margin).astype(np.float32)[:, None]
        leads[here, home] = True
        counted = np.where(leads, score, np.minimum(score, own[:, None]))
        least = (counted.max(axis=1) - tolerance).astype(np.float32)
        floor = learnt.standing[home] - tolerance
        trusted = (margin == 0.0)[:, None] | (learnt.standing >= floor[:, None])
        near = left & (counted >= least[:, None]) & (leads | (trusted & (tolerance > 0.0)[:, None]))
        order[:, place] = np.where(near, fit.preferred, len(rank)).argmin(axis=1)
        left[here, order[:, place]] = False
    return order
