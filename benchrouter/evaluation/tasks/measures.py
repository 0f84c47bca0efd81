"""Measures of a leave-one-dataset-out result: the columns of the paper's Table 1, and intervals.

All are pure functions on arrays. NaN = missing on the way in, undefined on the way out; macro
averages are over draws first, then over datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.values import Reported, macro, mean_known
from benchrouter.files.arrays import Array
from benchrouter.scores import formulas

if TYPE_CHECKING:
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut

Interval = tuple[float, float]
NAN = float("nan")
RESAMPLES = 2000  # of datasets, behind an interval
FEW_DATASETS = 6  # with fewer, even equal signs are not significant at 5 %: 2 · 2^-5 > 0.05
SPLIT_HALF = "oracle (split-half)"
PER_RECORD = "oracle per record"


@dataclass(frozen=True)
class Row(Reported):
    """One rule of the paper's Table 1; NaN = not applicable, or unknown.

    Attributes
    ----------
    rule : str
    accuracy : float
        Of the chosen models, macro average over datasets.
    accuracy_interval : (float, float)
        95 % bootstrap interval over datasets.
    vs_bma : float
        Mean difference to the best model on average, paired by dataset.
    vs_bma_interval : (float, float)
        Of that difference.
    ratio : float
        Mean over datasets of the accuracy divided by the oracle's.
    pearson, spearman : float
        Mean over datasets of the correlation of scores and true accuracies over the models.
    bma_share : float
        Share of tasks on which the best model on average is chosen.
    params_b : float
        Mean billions of parameters of the chosen models; NaN if any of them is of unknown size.
    rank : float
        Mean rank of the chosen model, 1 = none is more accurate; equals share the better rank.
    n_datasets, n_paired : int
        Datasets behind `accuracy` and behind `vs_bma`: those on which what was chosen (and BMA)
        was run.
    """

    rule: str
    accuracy: float
    accuracy_interval: Interval
    vs_bma: float
    vs_bma_interval: Interval
    ratio: float
    pearson: float
    spearman: float
    bma_share: float
    params_b: float
    rank: float
    n_datasets: int
    n_paired: int


def pearson(one: Array, other: Array) -> Array:
    """Pearson's correlation along the last axis, over the values that both have.

    Parameters
    ----------
    one, other : float64 arrays, shape (..., n_models)
        NaN = missing.

    Returns
    -------
    float64 array, shape (...)
        In [−1, 1]; NaN where fewer than two are there, or where either is constant.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    spread = _varies(one, known) & _varies(other, known)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    off = []
    for values in (one, other):
        filled = np.where(known, values, 0.0)
        off.append(np.where(known, filled - filled.sum(axis=-1, keepdims=True) / count, 0.0))
    product = (off[0] * off[1]).sum(axis=-1)
    norm = np.sqrt((off[0] ** 2).sum(axis=-1) * (off[1] ** 2).sum(axis=-1))
    found = np.clip(product / np.where(spread, norm, 1.0), -1.0, 1.0)
    return np.asarray(np.where(spread, found, np.nan))


def spearman(one: Array, other: Array) -> Array:
    """Spearman's correlation along the last axis: Pearson's of the ranks, equals sharing the mean.

    Parameters
    ----------
    one, other : float64 arrays, shape (..., n_models)
        NaN = missing.

    Returns
    -------
    float64 array, shape (...)
        In [−1, 1]; NaN where fewer than two are there, or where either is constant.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    return pearson(_mean_ranks(one, known), _mean_ranks(other, known))


def _varies(values: Array, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    highest = np.where(known, values, -np.inf).max(axis=-1)
    return np.asarray(highest > np.where(known, values, np.inf).min(axis=-1))


def _mean_ranks(values: Array, known: NDArray[np.bool_]) -> Array:
    filled = np.where(known, values, np.inf)
    below = (filled[..., None, :] < filled[..., :, None]).sum(axis=-1)
    equal = (filled[..., None, :] == filled[..., :, None]).sum(axis=-1)
    return np.where(known, below + (equal + 1) / 2, np.nan)


def ranks_of(picks: NDArray[np.int64], accuracy: Array) -> Array:
    """Rank of the chosen model: 1 + the number of models that are more accurate.

    Parameters
    ----------
    picks : int64 array, shape (...)
        Positions of the chosen models.
    accuracy : float64 array, shape (..., n_models)
        NaN = not run.

    Returns
    -------
    float64 array, shape (...)
        Of equally accurate models each has the better rank, so that the oracle's is always 1;
        NaN where the chosen model was not run.
    """
    own = np.take_along_axis(accuracy, picks[..., None], axis=-1)
    rank = 1.0 + (accuracy > own).sum(axis=-1)
    return np.asarray(np.where(np.isnan(own[..., 0]), np.nan, rank))


def bootstrap_interval(
    values: Array, *, level: float = 0.95, draws: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a mean over datasets.

    Parameters
    ----------
    values : float64 array, shape (n_datasets,)
        One value per dataset, NaN = left out. For two rules, the paired differences.
    level : float
        Coverage, in (0, 1).
    draws : int
        Resamples of the datasets.
    seed : int

    Returns
    -------
    (float, float)
        NaN with fewer than two datasets.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return NAN, NAN
    rng = np.random.default_rng(seed)
    means = known[rng.integers(0, len(known), (draws, len(known)))].mean(axis=1)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def split_half_oracle(
    correctness: NDArray[np.float32],
    dataset: NDArray[np.int32],
    n_datasets: int,
    preferred: NDArray[np.int32],
    *,
    times: int = 20,
    seed: int = 0,
) -> Array:
    """Accuracy of each dataset's best model, chosen on a random half and scored on the other.

    A maximum over models on few records is inflated; this one is not.

    Parameters
    ----------
    correctness : float32 array, shape (n_records, n_models)
        0, 1 or NaN.
    dataset : int32 array, shape (n_records,)
    n_datasets : int
    preferred : int32 array, shape (n_models,)
        Decides ties.
    times : int
        Random halvings, each scored both ways.
    seed : int

    Returns
    -------
    float64 array, shape (n_datasets,)
        NaN for a dataset of one record, and where no halving has scores on both sides.
    """
    found = np.full(n_datasets, np.nan)
    for code in range(n_datasets):
        rows = np.flatnonzero(dataset == code)
        rng = np.random.default_rng([seed, code])
        values = []
        for _ in range(times):
            half = np.zeros(len(rows), dtype=np.int32)
            half[rng.permutation(len(rows))[: len(rows) // 2]] = 1
            means = formulas.dataset_means(correctness[rows], half, 2)
            for chosen, scored in ((means[0], means[1]), (means[1], means[0])):
                if not np.isnan(chosen).all():
                    values.append(scored[formulas.best_model(chosen, preferred)])
        known = [value for value in values if not np.isnan(value)]
        if known:
            found[code] = float(np.mean(known))
    return found


def predictor_accuracy(results: LeaveOneOut, share_index: int = 0) -> float:
    """Mean accuracy of the predictor ḡ over datasets and models; NaN if p is known nowhere."""
    return macro(mean_known(results.p[:, share_index], axis=-1))


def error_of_p_hat(results: LeaveOneOut, nesting: str, share_index: int = 0) -> float:
    """Mean absolute error of p̂ over datasets and models; NaN if p̂ or p is known nowhere."""
    error = np.abs(results.p_hat[nesting] - results.p)[:, share_index]
    return macro(mean_known(error, axis=-1))


def scores_of(results: LeaveOneOut, nesting: str) -> dict[str, Array]:
    """Scores that the rules maximise, of every model in every cell.

    Returns
    -------
    dict of str to float64 array, shape (n_datasets, n_shares, n_draws, n_models)
        By rule; rules that give no score to every model are not there.
    """
    s3 = results.s3(nesting)
    found = {
        "S1": results.s1,
        "S2": results.s2,
        "S3": s3,
        "S3 with fallback": s3,
        "S3 true p": formulas.s3(results.s2, results.p),
    }
    if results.log_likelihood is not None and "LL" in results.picks[nesting]:
        found["LL"] = results.log_likelihood
    return {**found, **results.rule_scores.get(nesting, {})}


def table_one(
    results: LeaveOneOut, nesting: str, share_index: int = 0, *, seed: int = 0
) -> list[Row]:
    """Every column of the paper's Table 1, for every rule and for the bounds.

    Parameters
    ----------
    results : LeaveOneOut
    nesting : str
    share_index : int
        Which label share.
    seed : int
        Of the bootstrap; the same datasets are drawn for every rule.

    Returns
    -------
    list of Row
        The rules of the result, then "random" (no choice, but the mean over models), the
        split-half oracle (at label share 0 only) and the oracle per record.
    """
    picks = {rule: chosen[:, share_index] for rule, chosen in results.picks[nesting].items()}
    accuracy = results.accuracy[:, share_index]
    score = scores_of(results, nesting)
    # The best accuracy of each cell; unknown where no model is ever right.
    best = np.where(np.isnan(accuracy), -np.inf, accuracy).max(axis=-1)
    best = np.where(best > 0.0, best, np.nan)
    bma = mean_known(results.accuracy_of(nesting, "BMA")[:, share_index], axis=1)
    rows = []
    for rule in [*picks, "random", SPLIT_HALF, PER_RECORD]:
        values = _accuracies(results, nesting, rule, share_index)
        per_dataset = mean_known(values, axis=1)
        gain = per_dataset - bma
        n_paired = int((~np.isnan(gain)).sum())
        if rule == "BMA":
            gain = np.full_like(bma, np.nan)
        correlations = (NAN, NAN)
        if rule in score:
            these = score[rule][:, share_index]
            correlations = (macro(pearson(these, accuracy)), macro(spearman(these, accuracy)))
        chosen = picks.get(rule)
        rows.append(
            Row(
                rule,
                float(mean_known(per_dataset, axis=0)),
                bootstrap_interval(per_dataset, seed=seed),
                float(mean_known(gain, axis=0)),
                bootstrap_interval(gain, seed=seed),
                macro(values / best),
                *correlations,
                NAN if chosen is None else float((chosen == picks["BMA"]).mean()),
                NAN if chosen is None else float(results.params_b[chosen].mean()),
                NAN if chosen is None else macro(ranks_of(chosen, accuracy)),
                int((~np.isnan(per_dataset)).sum()),
                n_paired,
            )
        )
    return rows


def _accuracies(results: LeaveOneOut, nesting: str, rule: str, share_index: int) -> Array:
    """Accuracy of a rule or bound, shape (n_datasets, n_draws)."""
    if rule == PER_RECORD:
        return results.oracle_per_record[:, share_index]
    if rule == SPLIT_HALF:
        known = results.oracle_split_half[:, None]
        if results.label_shares[share_index] > 0.0:
            known = np.full_like(known, np.nan)
        return np.broadcast_to(known, (len(known), results.draws))
    return results.accuracy_of(nesting, rule)[:, share_index]
