"""Two-model cascades on recorded outcomes: a cheap model first, BMA where a judge doubts it.

The judge is a number for every prompt. Prompts below a threshold go to the strong model; the
threshold is swept.

- "predicted score": the router's prediction for the cheap model, under `auto` its chance of
  success. It needs no answer, so the strong model runs instead of the cheap one: one call a prompt.
- "log-likelihood": the recorded mean log-likelihood of the cheap model's own answer. The cheap
  model has to run first, so an escalated prompt costs both.
- "recorded score": the score of the cheap model's answer, as a perfect judge would know it, but
  not whether the strong model does better; escalation costs both. A reference.

BMA and the predictions come from the training part and know nothing of the test prompts. The choice
of cheap models does: they are those of the zero router, as measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.prompts.cost_curve import SETTINGS, aiq, non_decreasing_hull
from benchrouter.evaluation.prompts.costs import (
    CostQuality,
    cost_save,
    costs_of,
    measurable,
)
from benchrouter.evaluation.values import Reported
from benchrouter.files.arrays import Array

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults

Judge = Literal["predicted score", "log-likelihood", "recorded score"]
PREDICTED: Judge = "predicted score"
PAYS_BOTH: dict[Judge, bool] = {PREDICTED: False, "log-likelihood": True, "recorded score": True}


@dataclass(frozen=True)
class Cascade(Reported):
    """What a cheap model with BMA behind it costs and brings, over all thresholds.

    Attributes
    ----------
    cheap : str
    judge : "predicted score", "log-likelihood" or "recorded score"
    pays_both : bool
        Whether a prompt that is escalated costs both models, or the strong one only.
    thresholds : float64 array, shape (T,)
        Ascending; prompts are escalated where the judge is below. The first escalates none, the
        last, infinite, all.
    escalated : float64 array, shape (T,)
        Share of the prompts, in [0, 1].
    cost_usd, score : float64 arrays, shape (T,)
        Mean per prompt, as recorded.
    hull : float64 array, shape (H, 2)
        Non-decreasing convex hull of (cost, score).
    pair_hull : float64 array, shape (1 or 2, 2)
        The zero router of the two models alone.
    aiq, zero_aiq : float
        Area under the hull of the cascade and all single models, and under that of the single
        models alone, over the length of the range of single models' costs: their difference is
        what the cascade adds to the zero router, never below 0.
    lift : float
        Mean height of the hull above `pair_hull` between the costs of the two models: what the
        judge adds to mixing them at random.
    cost_save : float
        1 − cost of the cheapest threshold with at least the strong model's score / its cost.
    n_prompts : int
    why : dict of str to str
        Reason of every figure that is NaN: of "AIQ", "CostSave".
    """

    cheap: str
    judge: Judge
    pays_both: bool
    thresholds: Array
    escalated: Array
    cost_usd: Array
    score: Array
    hull: Array
    pair_hull: Array
    aiq: float
    zero_aiq: float
    lift: float
    cost_save: float
    n_prompts: int
    why: dict[str, str] = field(default_factory=dict)


def cascades(
    results: PromptResults, zero: CostQuality, predictor: str = "auto", metric: str = "score"
) -> list[Cascade]:
    """Put BMA behind every cheaper model of the zero router.

    Parameters
    ----------
    results : PromptResults
    zero : CostQuality
        Of the same predictor and metric: its single models are the zero router.
    predictor : str
        Whose predicted scores judge beforehand.
    metric : str
        One of the keys of `results.scores`.

    Returns
    -------
    list of Cascade
        By cheap model, cheapest first, and judge; without "log-likelihood" where the table has none
        of the cheap model on these prompts.

    Raises
    ------
    ValueError
        If the cost of BMA is not known, or no model of the zero router is cheaper.
    """
    rows, candidates = measurable(results, predictor, metric)
    strong = results.picks["BMA"][rows].astype(np.int64)
    unpriced = np.setdiff1d(strong, candidates)
    if len(unpriced):
        raise ValueError(
            f"no cascade: the cost of {results.models[unpriced[0]]}, best on average, is not known"
        )
    recorded, (cost, _) = results.scores[metric], costs_of(results)
    strong_cost, strong_score = (a[rows, strong].astype(np.float64) for a in (cost, recorded))
    judges: dict[Judge, NDArray[np.float32]] = {PREDICTED: results.success(predictor)}
    if results.log_likelihood is not None:
        judges["log-likelihood"] = results.log_likelihood
    judges["recorded score"] = recorded
    singles = np.column_stack([zero.model_cost_usd, zero.model_score]).tolist()
    found = []
    for cost_usd, score in zero.zero_hull.tolist():
        if cost_usd >= strong_cost.mean():
            break
        cheap = candidates[singles.index([cost_usd, score])]
        own_cost, own_score = (a[rows, cheap].astype(np.float64) for a in (cost, recorded))
        ends = np.array([(cost_usd, score), (strong_cost.mean(), strong_score.mean())])
        for judge, values in judges.items():
            signal = values[rows, cheap].astype(np.float64)
            if np.isnan(signal).any():
                continue
            extra = strong_cost if PAYS_BOTH[judge] else strong_cost - own_cost
            extra = np.where(strong == cheap, 0.0, extra)  # BMA itself: nothing to escalate to
            curve = _swept(signal, own_cost, extra, own_score, strong_score - own_score)
            found.append(_measured(results.models[cheap], judge, curve, ends, zero))
    if not found:
        raise ValueError("no cascade: no model of the zero router is cheaper than BMA")
    return found


def _swept(
    signal: Array, cost: Array, extra: Array, score: Array, gained: Array
) -> tuple[Array, Array, Array, Array]:
    """Thresholds, shares escalated, mean costs and mean scores as the threshold rises."""
    values, number = np.unique(signal, return_inverse=True)
    n = len(signal)
    share, more_cost, more_score = (
        np.concatenate([[0.0], np.cumsum(np.bincount(number, weights=w))]) / n
        for w in (np.ones(n), extra, gained)
    )
    thresholds = np.append(values, np.inf)  # no prompt lies below the least value
    some = np.unique(np.linspace(0, len(values), SETTINGS).round().astype(np.int64))
    return (
        thresholds[some],
        share[some],
        cost.mean() + more_cost[some],
        score.mean() + more_score[some],
    )


def _measured(
    cheap: str,
    judge: Judge,
    curve: tuple[Array, Array, Array, Array],
    ends: Array,
    zero: CostQuality,
) -> Cascade:
    thresholds, escalated, cost_usd, score = curve
    points = np.column_stack([cost_usd, score])
    hull, pair_hull = non_decreasing_hull(points), non_decreasing_hull(ends)
    low, (high, high_score) = ends[0, 0], ends[1]
    beside = np.concatenate([points, np.column_stack([zero.model_cost_usd, zero.model_score])])
    why = {"AIQ": zero.why["AIQ"]} if "AIQ" in zero.why else {}
    save = cost_save(points, high, high_score)
    if np.isnan(save):
        why["CostSave"] = "no threshold reaches BMA's score"
    return Cascade(
        cheap=cheap,
        judge=judge,
        pays_both=PAYS_BOTH[judge],
        thresholds=thresholds,
        escalated=escalated,
        cost_usd=cost_usd,
        score=score,
        hull=hull,
        pair_hull=pair_hull,
        aiq=float("nan") if "AIQ" in why else aiq(non_decreasing_hull(beside), *zero.cost_range),
        zero_aiq=zero.zero_aiq,
        lift=aiq(hull, low, high) - aiq(pair_hull, low, high),
        cost_save=save,
        n_prompts=zero.n_prompts,
        why=why,
    )
