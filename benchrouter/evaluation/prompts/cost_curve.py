"""The geometry of cost and quality: choices over λ, hulls of points, the area under a hull."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array

SETTINGS = 101  # points of a curve


def settings_over_lambda(
    predicted: Array, cost: Array, n_settings: int = SETTINGS
) -> tuple[Array, NDArray[np.int64]]:
    """Find the models that maximise predicted − λ·cost, for λ from 0 to where only cost counts.

    Parameters
    ----------
    predicted, cost : float64 arrays, shape (n, n_models)
        Without NaN.
    n_settings : int
        Values of λ. Where choices change at more values than that, those at even shares of all
        changes are taken.

    Returns
    -------
    lambdas : float64 array, shape (at most n_settings,)
        Ascending from 0. At a λ where a choice changes, the cheaper model is chosen already.
    picks : int64 array, shape (len(lambdas), n)
    """
    changes, models = [], []
    current = np.lexsort((cost, -predicted), axis=1)[:, 0]
    rows = np.arange(len(predicted))
    at = np.zeros(len(predicted))
    first = current
    while True:
        gain = predicted[rows, current][:, None] - predicted
        saved = cost[rows, current][:, None] - cost
        switch = np.where(saved > 0, gain / np.where(saved > 0, saved, 1.0), np.inf)
        following = np.lexsort((cost, switch), axis=1)[:, 0]
        moves = np.isfinite(switch[rows, following])
        if not moves.any():
            break
        # Rounding must not order two changes of a prompt against their sequence.
        at = np.where(moves, np.maximum(at, switch[rows, following]), np.inf)
        current = np.where(moves, following, current)
        changes.append(at)
        models.append(current)
    every = np.unique(np.concatenate([c[np.isfinite(c)] for c in changes] or [np.empty(0)]))
    every = np.concatenate([[0.0], every[every > 0]])
    if len(every) > n_settings:
        ranks = np.linspace(0, len(every) - 1, n_settings).round().astype(np.int64)
        every = every[ranks]
    picks = np.empty((len(every), len(predicted)), dtype=np.int64)
    for i, value in enumerate(every):
        picks[i] = first
        for changed, model in zip(changes, models, strict=True):
            picks[i] = np.where(changed <= value, model, picks[i])
    return every, picks


def non_decreasing_hull(points: Array) -> Array:
    """Upper convex hull of (cost, score), from the cheapest point to the best.

    Parameters
    ----------
    points : float64 array, shape (n, 2)
        Cost and score, in any order.

    Returns
    -------
    float64 array, shape (n_vertices, 2)
        Ascending in both; beyond the last vertex the hull is flat (arXiv 2403.12031).

    Raises
    ------
    ValueError
        If there is no point.
    """
    if len(points) == 0:
        raise ValueError("a hull needs at least one point, found none")
    ordered = points[np.lexsort((-points[:, 1], points[:, 0]))]
    vertices: list[Array] = []
    for point in ordered:
        if vertices and point[1] <= vertices[-1][1]:
            continue  # dearer and no better
        while len(vertices) > 1 and _slope(vertices[-2], vertices[-1]) <= _slope(
            vertices[-1], point
        ):
            vertices.pop()
        vertices.append(point)
    return np.array(vertices)


def aiq(hull: Array, low: float, high: float) -> float:
    """Average improvement in quality: area under a hull over the length of a range of costs.

    Parameters
    ----------
    hull : float64 array, shape (n_vertices, 2)
        As :func:`non_decreasing_hull` gives it.
    low, high : float
        The range. Above the hull's last vertex its score stays; below the first it is drawn
        towards a router that costs and scores 0.

    Returns
    -------
    float
        In the unit of the score. arXiv 2403.12031.

    Raises
    ------
    ValueError
        If the range is empty.
    """
    if not low < high:
        raise ValueError(f"AIQ needs a range of costs, found {low} to {high}")
    vertices = hull if hull[0, 0] <= 0 else np.concatenate([[[0.0, 0.0]], hull])
    inside = vertices[(vertices[:, 0] > low) & (vertices[:, 0] < high), 0]
    cost = np.concatenate([[low], inside, [high]])
    score = np.interp(cost, vertices[:, 0], vertices[:, 1])
    area = (np.diff(cost) * (score[1:] + score[:-1]) / 2).sum()
    return float(area / (high - low))


def _slope(one: Array, other: Array) -> float:
    run = other[0] - one[0]
    return float((other[1] - one[1]) / run) if run > 0 else float("inf")
