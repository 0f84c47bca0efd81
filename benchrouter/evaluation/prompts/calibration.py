"""Whether a predicted chance of success comes true as often as it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.values import Reported, per_dataset
from benchrouter.files.arrays import Array
from benchrouter.scores.expected.prompt_scores import Z80

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults

BINS = 15
CERTAIN = 1e-3  # least distance of predictions from 0 and 1, which keeps the log loss finite
OF_CORRECTNESS = ("auto", "s3", "BMA")  # rules that predict a chance of being correct


@dataclass(frozen=True)
class Reliability(Reported):
    """Predicted against observed, in bins of equal mass.

    Attributes
    ----------
    predicted, observed : float64 arrays, shape (n_bins,)
        Means of each bin, by ascending prediction.
    count : int64 array, shape (n_bins,)
        Pairs in each bin. Equal predictions share a bin, so bins may be fewer than asked for and
        of unequal mass.
    ece : float
        Expected calibration error: mean |predicted − observed| over bins, weighted by count.
    log_loss : float
        Mean −log of the chance that was given to what was observed; predictions are brought within
        [0.001, 0.999]. NaN where observations leave [0, 1].
    """

    predicted: Array
    observed: Array
    count: NDArray[np.int64]
    ece: float
    log_loss: float


def reliability(
    predicted: NDArray[np.floating], observed: NDArray[np.floating], bins: int = BINS
) -> Reliability:
    """Compare predictions with observations, in bins of equal mass.

    Parameters
    ----------
    predicted, observed : float arrays, of the same shape
        NaN in either = no such pair.
    bins : int

    Raises
    ------
    ValueError
        If the shapes differ, no pair is known, or bins is below 1.
    """
    if predicted.shape != observed.shape:
        raise ValueError(
            f"predictions have shape {predicted.shape}, observations {observed.shape}: "
            "expected the same"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    known = ~(np.isnan(predicted) | np.isnan(observed))
    if not known.any():
        raise ValueError(f"none of {predicted.size} predictions has an observation")
    p, y = predicted[known].astype(np.float64), observed[known].astype(np.float64)
    _, number = np.unique(p, return_inverse=True)
    mass = np.bincount(number)
    # A value goes to the bin in which the middle of its mass lies, so that equal predictions share
    # a bin; otherwise the order of the pairs would create a difference between bins.
    middle = np.cumsum(mass) - mass / 2
    bin_of_value = np.minimum((middle * bins / len(p)).astype(np.int64), bins - 1)
    _, pair_bin = np.unique(bin_of_value[number], return_inverse=True)
    count = np.bincount(pair_bin)
    predicted_mean = np.bincount(pair_bin, weights=p) / count
    observed_mean = np.bincount(pair_bin, weights=y) / count
    ece = float((count * np.abs(predicted_mean - observed_mean)).sum() / count.sum())
    return Reliability(predicted_mean, observed_mean, count.astype(np.int64), ece, _log_loss(p, y))


def _log_loss(predicted: Array, observed: Array) -> float:
    if observed.min() < 0.0 or observed.max() > 1.0:
        return float("nan")
    p = np.clip(predicted, CERTAIN, 1.0 - CERTAIN)
    return float(-(observed * np.log(p) + (1.0 - observed) * np.log1p(-p)).mean())


def reliabilities(
    results: PromptResults, rule: str = "auto", bins: int = BINS
) -> dict[str, Reliability]:
    """Calibration of a rule's predictions, over all models and for the chosen model.

    Parameters
    ----------
    results : PromptResults
    rule : str
        One of the keys of `results.predicted`.
    bins : int

    Returns
    -------
    dict of str to Reliability
        "every model" and "the chosen model". The chances of "auto" and "s3" and the standing
        behind "BMA" are compared with correctness, the predictions of other rules with the score,
        which is the same where scores are 0 or 1.

    Raises
    ------
    ValueError
        If no prediction has a recorded score.
    """
    observed = results.scores["score"]
    if rule in OF_CORRECTNESS and results.correctness is not None:
        observed = results.correctness
    predicted = results.success(rule)
    return {
        "every model": reliability(predicted, observed, bins),
        "the chosen model": reliability(
            results.of_picks(rule, predicted), results.of_picks(rule, observed), bins
        ),
    }


def interval_holds(results: PromptResults) -> Array:
    """Whether the success rate of auto's choices lies in the 80 % interval told, per dataset.

    The interval is that of the success rate on one kind of prompts, here a dataset. The sampling
    error of the test prompts is added to it.

    Returns
    -------
    float64 array, shape (D,)
        1 or 0; NaN where no correctness of the choices is known.

    Raises
    ------
    ValueError
        If correctness is not known.
    """
    if results.chance is None or results.chance_spread is None or results.correctness is None:
        raise ValueError("a dataset has no threshold between right and wrong: no chance is told")
    observed = results.of_picks("auto", results.correctness)
    known = ~np.isnan(observed)
    chance = np.where(known, results.of_picks("auto", results.chance), np.nan)
    n = len(results.datasets)
    count = np.bincount(results.dataset[known], minlength=n)

    def mean(values: Array) -> Array:
        return per_dataset(np.where(known, values, np.nan), results.dataset, n)

    variance = mean(results.chance_spread**2) + mean(chance * (1.0 - chance)) / np.maximum(count, 1)
    off = np.abs(mean(observed) - mean(chance))
    return np.where(count > 0, off <= Z80 * np.sqrt(variance), np.nan)
