"""From a predicted score to the chance that the answer is correct: isotonic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array

BINS = 50  # of equal mass, before they are made to rise: a bin's mean is no accident of few pairs


@dataclass(frozen=True)
class Isotonic:
    """Chance of success as a rising, piecewise linear function of the predicted score.

    Attributes
    ----------
    score : float64 array, shape (n_knots,)
        Ascending.
    chance : float64 array, shape (n_knots,)
        Ascending, in [0, 1]; held beyond the ends.
    """

    score: Array
    chance: Array

    def __call__(self, score: Array) -> Array:
        """Chance at any scores, in the shape of `score`; NaN stays NaN."""
        return np.asarray(np.interp(score, self.score, self.chance))


def isotonic(predicted: NDArray[np.floating], observed: NDArray[np.floating]) -> Isotonic:
    """Fit a rising function to pairs of prediction and outcome.

    Pairs are first joined into at most 50 bins of equal mass, equal predictions in one; bins that
    fall are then pooled (pool adjacent violators).

    Parameters
    ----------
    predicted : float array, shape (n,)
    observed : float array, same shape
        0 = wrong, 1 = correct; NaN in either = no such pair.

    Raises
    ------
    ValueError
        If no pair is known.
    """
    known = ~(np.isnan(predicted) | np.isnan(observed))
    if not known.any():
        raise ValueError(f"none of {predicted.size} predictions has an outcome to calibrate by")
    values, number = np.unique(predicted[known].astype(np.float64), return_inverse=True)
    mass = np.bincount(number)
    # A value belongs to the bin of the middle of its mass, so that equal predictions stay together.
    middle = np.cumsum(mass) - mass / 2
    bin_of_value = np.unique((middle * BINS / mass.sum()).astype(np.int64), return_inverse=True)[1]
    pair_bin = bin_of_value[number]
    count = np.bincount(pair_bin).astype(np.float64)
    score = np.bincount(pair_bin, weights=values[number]) / count
    chance = np.bincount(pair_bin, weights=observed[known].astype(np.float64)) / count
    return Isotonic(score, _rising(chance, count))


def _rising(values: Array, weights: Array) -> Array:
    """Nearest non-decreasing values in weighted least squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for pool in zip(values.tolist(), weights.tolist(), [1] * len(values), strict=True):
        while pools and pools[-1][0] >= pool[0]:
            mean, weight, n = pools.pop()
            total = weight + pool[1]
            pool = ((mean * weight + pool[0] * pool[1]) / total, total, n + pool[2])
        pools.append(pool)
    return np.repeat([mean for mean, _, _ in pools], [n for _, _, n in pools])
