"""Cost and quality: the curve over λ, its hull and area, and relative gains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.prompts.cost_curve import aiq, non_decreasing_hull, settings_over_lambda
from benchrouter.evaluation.prompts.rule_rows import random_choice
from benchrouter.evaluation.values import Reported, mean_of, per_dataset
from benchrouter.files.arrays import Array

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults


@dataclass(frozen=True)
class CostQuality(Reported):
    """Cost and score of maximising predicted score − λ·cost, over all λ.

    Attributes
    ----------
    predictor : str
        Rule or baseline that predicted the scores.
    metric : str
    lambdas : float64 array, shape (L,)
        Score given up per US$ saved, ascending from 0 (cost decides ties only) to where every
        prompt gets its cheapest model.
    cost_usd, score : float64 arrays, shape (L,)
        Mean per prompt, as recorded.
    hull : float64 array, shape (H, 2)
        Non-decreasing convex hull of (cost, score).
    models : tuple of str
        The candidates: those whose cost is known.
    model_cost_usd, model_score : float64 arrays, one per candidate
        Each by itself, on the same prompts.
    zero_hull : float64 array, shape (Z, 2)
        The zero router: hull of the single models.
    cost_range : (float, float)
        Of the single models: the interval of both areas.
    aiq, zero_aiq : float
        Area under the hull over the length of that interval.
    best_single : str
        The single model of the highest mean score.
    perf_gain : float
        Relative gain over it at the setting of the highest score.
    cost_save : float
        1 − cost of the cheapest setting with at least its score / its cost; NaN if there is none.
    n_prompts, n_left_out : int
        Prompts measured, and those without the score and the cost of every candidate.
    why : dict of str to str
        Reason of every figure that is NaN: of "AIQ", "PerfGain", "CostSave".
    notes : tuple of str
        The same in sentences.
    """

    predictor: str
    metric: str
    lambdas: Array
    cost_usd: Array
    score: Array
    hull: Array
    models: tuple[str, ...]
    model_cost_usd: Array
    model_score: Array
    zero_hull: Array
    cost_range: tuple[float, float]
    aiq: float
    zero_aiq: float
    best_single: str
    perf_gain: float
    cost_save: float
    n_prompts: int
    n_left_out: int
    why: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gains(Reported):
    """A rule's accuracy against random choice, the best single model and the oracle.

    The words of arXiv 2601.07206, macro over datasets.

    Attributes
    ----------
    rule : str
    gain_random, gain_best : float
        Gain@R and Gain@B: mean over datasets of accuracy / that of random choice, of the best
        single model, less 1.
    gap_oracle : float
        Gap@O: mean over datasets of 1 − accuracy / that of the oracle per prompt.
    best_single : str
        The single model of the highest macro accuracy on the test prompts, of those that ran on
        the most datasets.
    n_datasets : tuple of int
        Datasets behind the three means; those where the divisor is 0 have no ratio.
    """

    rule: str
    gain_random: float
    gain_best: float
    gap_oracle: float
    best_single: str
    n_datasets: tuple[int, int, int]


def cost_quality(results: PromptResults, predictor: str, metric: str = "score") -> CostQuality:
    """Trade predicted score against cost, over all λ.

    Decisions use the cost that the training part predicts for the model on the prompt; the
    recorded cost of the chosen model is paid. There is no fallback for prompts with thin evidence.

    Parameters
    ----------
    results : PromptResults
    predictor : str
        One of the keys of `results.predicted`.
    metric : str
        One of the keys of `results.scores`.

    Raises
    ------
    ValueError
        If no cost is recorded, or no prompt has the scores and costs of all models whose cost is
        known.
    """
    rows, candidates = measurable(results, predictor, metric)
    cost_usd, expected_cost_usd = costs_of(results)
    at = np.ix_(rows, candidates)
    score, cost = (a[at].astype(np.float64) for a in (results.scores[metric], cost_usd))
    predicted = results.predicted[predictor][at].astype(np.float64)
    lambdas, picks = settings_over_lambda(predicted, expected_cost_usd[at].astype(np.float64))
    here = np.arange(len(rows))
    points = np.array([(cost[here, p].mean(), score[here, p].mean()) for p in picks])
    singles = np.column_stack([cost.mean(axis=0), score.mean(axis=0)])
    best = int(np.lexsort((singles[:, 0], -singles[:, 1]))[0])
    hull, zero_hull = non_decreasing_hull(points), non_decreasing_hull(singles)
    low, high = float(singles[:, 0].min()), float(singles[:, 0].max())
    nan, why = float("nan"), {}
    if score.min() < 0:
        why = dict.fromkeys(("AIQ", "PerfGain", "CostSave"), "scores are below 0")
    elif not low < high:
        why["AIQ"] = "all models cost the same"
    perf_gain, cost_save = _savings(points, singles[best], why)
    return CostQuality(
        predictor=predictor,
        metric=metric,
        lambdas=lambdas,
        cost_usd=points[:, 0],
        score=points[:, 1],
        hull=hull,
        models=tuple(results.models[m] for m in candidates),
        model_cost_usd=singles[:, 0],
        model_score=singles[:, 1],
        zero_hull=zero_hull,
        cost_range=(low, high),
        aiq=nan if "AIQ" in why else aiq(hull, low, high),
        zero_aiq=nan if "AIQ" in why else aiq(zero_hull, low, high),
        best_single=results.models[candidates[best]],
        perf_gain=perf_gain,
        cost_save=cost_save,
        n_prompts=len(rows),
        n_left_out=len(results.rows) - len(rows),
        why=why,
        notes=_notes(why),
    )


def costs_of(results: PromptResults) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Recorded costs, and those expected by the training part.

    Returns
    -------
    cost_usd, expected_cost_usd : float32 arrays, shape (Q, M)

    Raises
    ------
    ValueError
        If no cost is recorded.
    """
    if results.cost_usd is None or results.expected_cost_usd is None:
        raise ValueError("no cost is recorded in the table: a cost-quality curve needs cost::MODEL")
    return results.cost_usd, results.expected_cost_usd


def measurable(
    results: PromptResults, predictor: str, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the models whose cost is known, and the prompts on which all of them can be measured.

    Parameters
    ----------
    results : PromptResults
    predictor : str
        One of the keys of `results.predicted`.
    metric : str
        One of the keys of `results.scores`.

    Returns
    -------
    rows : int64 array
        Positions among the test prompts: those with score, cost and prediction of every candidate.
    candidates : int64 array
        Positions of the models.

    Raises
    ------
    ValueError
        If no cost is recorded, or there is no such prompt.
    """
    cost_usd, expected = costs_of(results)
    usable = ~np.isnan(results.scores[metric]) & ~np.isnan(cost_usd)
    candidates = np.flatnonzero((usable & ~np.isnan(expected)).any(axis=0))
    usable &= ~np.isnan(expected) & ~np.isnan(results.predicted[predictor])
    rows = np.flatnonzero(usable[:, candidates].all(axis=1)) if len(candidates) else candidates
    if not len(rows):
        raise ValueError(
            f"none of {len(results.rows)} test prompts has the score and the cost of all models "
            f"whose cost is known ({len(candidates)})"
        )
    return rows, candidates


def gains(results: PromptResults) -> list[Gains]:
    """Compare every rule's accuracy with random choice, the best single model and the oracle.

    Parameters
    ----------
    results : PromptResults
        Its correctness is the accuracy, or the score where thresholds are not known.

    Returns
    -------
    list of Gains
        One per rule and baseline, BMA and cheapest; NaN where no dataset has a ratio, as for
        scores below 0.
    """
    accuracy = results.correctness if results.correctness is not None else results.scores["score"]
    n_datasets = len(results.datasets)

    def of(values: Array) -> Array:
        return per_dataset(values, results.dataset, n_datasets)

    singles = np.array([of(column.astype(np.float64)) for column in accuracy.T])
    coverage = (~np.isnan(singles)).sum(axis=1)
    macro = np.array([mean_of(single) for single in singles])
    # As for BMA, only models with the widest coverage compete: one may have run on easy datasets.
    best = int(np.argmax(np.where(coverage == coverage.max(), macro, -np.inf)))
    known = ~np.isnan(accuracy)
    random = of(random_choice(accuracy))
    oracle = of(np.where(known, accuracy, -np.inf).max(axis=1).astype(np.float64))
    found = []
    for rule in results.picks:
        if rule == "oracle":
            continue
        mine = of(results.of_picks(rule, accuracy))
        ratios = [_ratio(mine, other) for other in (random, singles[best], oracle)]
        counts = [int((~np.isnan(ratio)).sum()) for ratio in ratios]
        found.append(
            Gains(
                rule=rule,
                gain_random=mean_of(ratios[0]) - 1,
                gain_best=mean_of(ratios[1]) - 1,
                gap_oracle=1 - mean_of(ratios[2]),
                best_single=results.models[best],
                n_datasets=(counts[0], counts[1], counts[2]),
            )
        )
    return found


def _ratio(one: Array, other: Array) -> Array:
    """Accuracy over accuracy; NaN where the divisor is not above 0."""
    return np.asarray(one / np.where(other > 0, other, np.nan))


def _notes(why: dict[str, str]) -> tuple[str, ...]:
    """One sentence for each reason why figures are left out."""
    names = {reason: [n for n, r in why.items() if r == reason] for reason in why.values()}
    return tuple(
        f"{', '.join(of)} {'is' if len(of) == 1 else 'are'} left out: {reason}"
        for reason, of in names.items()
    )


def _savings(points: Array, best: Array, why: dict[str, str]) -> tuple[float, float]:
    """PerfGain and CostSave against the best single model's (cost, score), or why not."""
    if "PerfGain" in why:
        return float("nan"), float("nan")
    cost, score = float(best[0]), float(best[1])
    perf_gain = float(points[:, 1].max() / score - 1) if score > 0 else float("nan")
    if not score > 0:
        why["PerfGain"] = "no single model has a score above 0"
    if not cost > 0:
        why["CostSave"] = "the best single model costs nothing"
        return perf_gain, float("nan")
    save = cost_save(points, cost, score)
    if np.isnan(save):
        why["CostSave"] = "no setting reaches the best single model's score"
    return perf_gain, save


def cost_save(points: Array, cost_usd: float, score: float) -> float:
    """1 − cost of the cheapest setting that is as good as a model / that model's cost.

    Parameters
    ----------
    points : float64 array, shape (n, 2)
        Mean cost and score of every setting.
    cost_usd, score : float
        Of the model; its cost is above 0.

    Returns
    -------
    float
        NaN if no setting is as good.
    """
    enough = points[points[:, 1] >= score - 1e-12, 0]  # sums in another order differ in rounding
    return float(1 - enough.min() / cost_usd) if len(enough) else float("nan")
