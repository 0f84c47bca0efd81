"""Weights of the models that may be best: what matters is how those compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array

REACH = 2.0  # models this many deviations below the best count e^-1/2


def contenders(
    standing: Array, best: Array | float, deviation: float, known: NDArray[np.bool_]
) -> Array:
    """Weigh models by how near their standing comes to the largest one.

    Parameters
    ----------
    standing : float64 array, shape (n, n_models)
    best : float, or float64 array of shape (n, 1)
        The largest standing.
    deviation : float
        Of a dataset's own effect on a model.
    known : bool array, shape (n, n_models)
        The other models weigh nothing.

    Returns
    -------
    float64 array, shape (n, n_models)
        Each row adds up to 1.
    """
    behind = np.where(known, best - standing, 0.0) / max(REACH * deviation, 1e-6)
    raw = np.where(known, np.exp(-0.5 * behind**2), 0.0)
    return np.asarray(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-12))
