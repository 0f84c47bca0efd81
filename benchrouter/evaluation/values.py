"""Means of known values, and results as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.files.plain import finite


class Reported:
    """A dataclass of results that reports hold as plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain lists and numbers, ready for JSON (NaN and infinities as None)."""
        return {name: plain_values(value) for name, value in vars(self).items()}


def plain_values(value: Any) -> Any:
    """Plain lists and numbers of arrays, numbers and dicts of them, with NaN as None."""
    return finite(_lists(value))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def macro(values: Array) -> float:
    """Mean over draws, then over datasets, of the known values.

    Parameters
    ----------
    values : float64 array, shape (n_datasets, n_draws)
        NaN = unknown.

    Returns
    -------
    float
        NaN if nothing is known.
    """
    per_dataset = mean_known(values, axis=1)
    return float(mean_known(per_dataset, axis=0))


def mean_known(values: Array, axis: int) -> Array:
    """Mean of the known values along an axis; NaN, without a warning, where there are none.

    Parameters
    ----------
    values : float64 array
    axis : int

    Returns
    -------
    float64 array
    """
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.asarray(np.where(known, values, 0.0).sum(axis=axis) / np.where(count, count, np.nan))


def per_dataset(values: Array, dataset: NDArray[np.int32], n_datasets: int) -> Array:
    """Mean of every dataset over the prompts where a value is known.

    Parameters
    ----------
    values : float64 array, shape (n,)
        NaN = unknown.
    dataset : int32 array, shape (n,)
    n_datasets : int

    Returns
    -------
    float64 array, shape (n_datasets,)
        NaN for a dataset without a known value.
    """
    known = ~np.isnan(values)
    counts = np.bincount(dataset[known], minlength=n_datasets)
    totals = np.bincount(dataset[known], weights=values[known], minlength=n_datasets)
    return np.asarray(totals / np.where(counts > 0, counts, np.nan))


def mean_of(values: Array) -> float:
    """Mean of the values that are known; NaN if there is none.

    Parameters
    ----------
    values : float64 array, shape (n,)
        NaN = unknown.
    """
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
