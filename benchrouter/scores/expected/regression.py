"""Two small regressions in closed form or in a few steps: least squares in a box, and logistic."""

from __future__ import annotations

import numpy as np

from benchrouter.files.arrays import Array

SWEEPS = 1000  # of coordinate descent; a handful of unknowns settle in some dozens
SETTLED = 1e-12
NEWTON_STEPS = 30


def least_squares(gram: Array, moment: Array, largest: float) -> Array:
    """Minimise wᵀ·gram·w − 2·momentᵀ·w over 0 ≤ w ≤ largest, by coordinate descent.

    Parameters
    ----------
    gram : float64 array, shape (n, n)
        Symmetric, positive semidefinite.
    moment : float64 array, shape (n,)
    largest : float

    Returns
    -------
    float64 array, shape (n,)
        0 for an unknown whose diagonal entry is 0.
    """
    w = np.zeros(len(moment))
    active = np.flatnonzero(np.diag(gram) > 0.0)
    for _ in range(SWEEPS):
        moved = 0.0
        for j in active:
            step = (moment[j] - gram[j] @ w) / gram[j, j]
            new = min(max(w[j] + step, 0.0), largest)
            moved = max(moved, abs(new - w[j]))
            w[j] = new
        if moved < SETTLED:
            break
    return w


def logistic(features: Array, outcome: Array, weight: Array, prior: Array, penalty: Array) -> Array:
    """Logistic regression by Newton's method, drawn towards a prior.

    Parameters
    ----------
    features : float64 array, shape (n, n_features)
    outcome : float64 array, shape (n,)
        In [0, 1].
    weight : float64 array, shape (n,)
        Of the records; counted as if they added up to 1.
    prior, penalty : float64 arrays, shape (n_features,)
        The penalty is ½ Σ penalty · (coefficient − prior)².

    Returns
    -------
    float64 array, shape (n_features,)
    """
    share = weight / max(weight.sum(), 1e-300)  # without any weight the prior stays
    coefficients = prior.copy()
    for _ in range(NEWTON_STEPS):
        p = sigmoid(features @ coefficients)
        slope = features.T @ (share * (p - outcome)) + penalty * (coefficients - prior)
        curvature = (features * (share * p * (1.0 - p))[:, None]).T @ features
        step = np.linalg.solve(curvature + np.diag(penalty), slope)
        coefficients = coefficients - step
        if np.abs(step).max() < SETTLED:
            break
    return np.asarray(coefficients)


def sigmoid(z: Array) -> Array:
    """Logistic function, without overflow.

    Parameters
    ----------
    z : float64 array

    Returns
    -------
    float64 array, same shape
        In (0, 1).
    """
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -500.0, 500.0))))
