"""Predictors of raw scores to compare with: linear regression and kNN-100, by scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from benchrouter.files.arrays import Floats

RIDGE = 1.0  # scikit-learn's default; without any, fewer records than dims would be interpolated
K_BASELINE = 100  # neighbours, arXiv 2505.12601
BLOCK = 1024  # prompts whose neighbours' scores are held at a time


def has_scikit_learn() -> bool:
    """Tell whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def linear_regression(train: Floats, scores: Floats, test: Floats) -> Floats:
    """Regress every model's raw score linearly on the embedding.

    Parameters
    ----------
    train : float32 array, shape (n_train, dim)
        Unit rows.
    scores : float32 array, shape (n_train, n_models)
        Recorded; NaN = not run, left out of that model's regression.
    test : float32 array, shape (n_test, dim)
        Unit rows.

    Returns
    -------
    float32 array, shape (n_test, n_models)
        Predicted score; NaN for a model without any score.

    Notes
    -----
    Least squares with an intercept and a ridge of 1, on rows of unit norm.
    """
    from sklearn.linear_model import Ridge

    present = ~np.isnan(scores)
    predicted = np.full((len(test), scores.shape[1]), np.nan, dtype=np.float32)
    # Models that ran on the same records share one factorisation.
    patterns, group = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        rows, columns = patterns[:, number], np.flatnonzero(group.ravel() == number)
        if not rows.any():
            continue
        fitted = Ridge(RIDGE, solver="cholesky").fit(
            train[rows].astype(np.float64), scores[np.ix_(rows, columns)].astype(np.float64)
        )
        predicted[:, columns] = fitted.predict(test.astype(np.float64)).reshape(len(test), -1)
    return predicted


def nearest_100(train: Floats, scores: Floats, test: Floats) -> Floats:
    """Mean raw score of the 100 nearest training records.

    Parameters
    ----------
    train : float32 array, shape (n_train, dim)
        Unit rows; all of them vote where they are fewer than 100.
    scores : float32 array, shape (n_train, n_models)
        Recorded; NaN = not run, left out of the mean.
    test : float32 array, shape (n_test, dim)
        Unit rows.

    Returns
    -------
    float32 array, shape (n_test, n_models)
        Where none of the neighbours has a score, the model's mean over all records; NaN for a
        model without any.
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(K_BASELINE, len(train))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="euclidean").fit(train)
    ids = search.kneighbors(test, return_distance=False)
    present = ~np.isnan(scores)
    filled = np.where(present, scores, np.float32(0))
    counts = present.sum(axis=0)
    means = filled.sum(axis=0, dtype=np.float64) / np.where(counts > 0, counts, np.nan)
    predicted = np.empty((len(test), scores.shape[1]), dtype=np.float32)
    for start in range(0, len(test), BLOCK):
        some = ids[start : start + BLOCK]
        votes = present[some].sum(axis=1)
        total = filled[some].sum(axis=1, dtype=np.float64)
        predicted[start : start + BLOCK] = np.where(votes > 0, total / np.maximum(votes, 1), means)
    return predicted


BASELINES = {"linear regression": linear_regression, "kNN-100": nearest_100}
