"""All models in the order in which they would be chosen: whom to ask when the first is down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions
from benchrouter.decisions.rules import Decided, Rule, Rules


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
        Expected cost of every model; None without a policy.
    """

    decisions: Decisions
    scores: NDArray[np.float32]
    order: NDArray[np.int32]
    cost_usd: NDArray[np.float32] | None = None


def allowed_of(models: Sequence[str], allowed: Iterable[str] | None) -> NDArray[np.bool_]:
    """Which models may be chosen.

    Parameters
    ----------
    models : sequence of str
        The candidates.
    allowed : iterable of str, optional
        Names; by default all of them.

    Returns
    -------
    bool array, shape (n_models,)

    Raises
    ------
    TypeError, ValueError
        If it is a single str, names no model, or one that is none of the candidates.
    """
    if allowed is None:
        return np.ones(len(models), np.bool_)
    if isinstance(allowed, str):
        raise TypeError(f"models must be a list of names, got a single string, {allowed!r}")
    names = list(allowed)
    unknown = [name for name in names if name not in models]
    if unknown or not names:
        found = ", ".join(map(repr, unknown)) if unknown else "none"
        raise ValueError(f"models: found {found}, expected some of {list(models)}")
    return np.isin(models, names)


def rank(
    rules: Rules,
    rows: NDArray[np.float32],
    rule: Rule,
    k: int | None,
    allowed: NDArray[np.bool_],
) -> tuple[Decided, NDArray[np.float32], NDArray[np.int32]]:
    """Order models by predicted score, where cost does not count.

    Parameters
    ----------
    rules : Rules
    rows : float32 array, shape (n_prompts, dim)
        Unit rows.
    rule : "auto", "mean", "raw" or "s3"
    k : int, optional
        Neighbours that vote, instead of the fit's.
    allowed : bool array, shape (n_models,)
        Models that may be chosen, at least one.

    Returns
    -------
    decided : Decided
        Arrays of shape (n_prompts,), as of :meth:`Rules.decide`.
    scores : float32 array, shape (n_prompts, n_models)
    order : int32 array, shape (n_prompts, n_allowed)
        By score, by the rule "auto" each the one to choose were those before it not allowed; on a
        fallback by standing. Ties as in decisions.

    Raises
    ------
    TypeError, ValueError
        As :meth:`Rules.check` does.
    """
    k = rules.check(rule, k)
    fit = rules.fit
    here = np.arange(len(rows))
    neighbours = rules.index.search(rows, max(k, fit.settings.kappa))
    chosen, scored = rules.decide_and_score(rows, neighbours, rule, k, allowed)
    counted = rules.counted(scored, chosen.fallback, rule, allowed)
    counted = np.where(np.isnan(counted), -np.inf, counted)
    counted[here, chosen.model] = np.inf  # the decision itself, a fallback model included
    ranked = np.lexsort((np.broadcast_to(fit.preferred, counted.shape), -counted), axis=1)
    order = ranked[allowed[ranked]].reshape(len(rows), int(allowed.sum())).astype(np.int32)
    certain = np.flatnonzero(~chosen.fallback)
    if scored.strange is not None and len(certain):
        order[certain] = _by_repeated_choice(
            rules, scored.scores[certain], scored.strange[certain], allowed
        )
    return Decided(chosen, rules.success(chosen.score, scored.strange)), scored.scores, order


def _by_repeated_choice(
    rules: Rules,
    expected: NDArray[np.float32],
    strange: NDArray[np.float32],
    allowed: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Models as the rule "auto" would choose them one after another, as its kernel decides."""
    fit, here = rules.fit, np.arange(len(expected))
    learnt, rank = fit.expectation, np.empty(len(fit.models), np.intp)
    rank[np.lexsort((fit.preferred, -rules.prior("auto")))] = np.arange(len(rank))
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


def scores_and_margins(
    predicted: NDArray[np.float32], model: NDArray[np.int32], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
