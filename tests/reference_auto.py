"""Slow, obvious float64 twin of the score `auto` (benchrouter.auto), one loop at a time."""

from __future__ import annotations

import math

import numpy as np


def estimate(accuracy, standing_z, local_z, distance_z, n_records, within, standing, local, u, s):
    """Mean and covariance of the accuracies, trust, optimism; arguments of auto.estimate."""
    n_tasks, n_models = accuracy.shape
    tasks, models = range(n_tasks), range(n_models)
    ran = ~np.isnan(accuracy)
    weight = [math.exp(-((d - u) ** 2) / (2 * s * s)) + 5 / n_tasks for d in distance_z]
    squares = count = 0.0
    for z in tasks:
        found = [accuracy[z, m] - standing_z[z, m] for m in models if ran[z, m]]
        squares += weight[z] * sum((f - np.mean(found)) ** 2 for f in found)
        count += weight[z] * len(found)
    deviation = math.sqrt(squares / count)

    def contenders(b, there):
        best = max(b[m] for m in models if there[m])
        width = max(2 * deviation, 1e-6)
        raw = [math.exp(-0.5 * ((best - b[m]) / width) ** 2) if there[m] else 0.0 for m in models]
        return [r / sum(raw) for r in raw]

    rows = []
    for z in tasks:
        share = contenders(standing_z[z], ran[z])
        y = [accuracy[z, m] - standing_z[z, m] if ran[z, m] else 0.0 for m in models]
        x = [local_z[z, m] - standing_z[z, m] for m in models]
        y_level = sum(share[m] * y[m] for m in models)
        x_level = sum(share[m] * x[m] for m in models)
        rows.append((share, y, x, y_level, x_level))

    def slope(terms):
        xx = sum(w * x * x for w, x, _ in terms)
        xy = sum(w * x * y for w, x, y in terms)
        extra = 5 * xx / sum(weight)
        return 0.75 if xx == 0 else min(max((xy + 0.75 * extra) / (xx + extra), 0), 1)

    trust = slope(
        [
            (weight[z] * share[m], x[m] - x_level, (y[m] - y_level) if ran[z, m] else 0.0)
            for z, (share, y, x, y_level, x_level) in enumerate(rows)
            for m in models
        ]
    )
    level = slope([(weight[z], r[4], r[3]) for z, r in enumerate(rows)])
    error = np.full((n_tasks, n_models), np.nan)
    for z, (_, y, x, _, x_level) in enumerate(rows):
        for m in models:
            if ran[z, m]:
                error[z, m] = y[m] - trust * (x[m] - x_level) - level * x_level
    there = [z for z in tasks if ran[z].any()]
    too_large = []
    for z in there:
        largest = max(
            (m for m in models if ran[z, m]), key=lambda m, z=z: accuracy[z, m] - error[z, m]
        )
        too_large.append(-error[z, largest])
    optimism = np.average(too_large, weights=[weight[z] for z in there])
    optimism *= len(there) / (len(there) + 5)
    covariance = shrunk(error, ran, weight)
    per_record = sum(w / n for w, n in zip(weight, n_records, strict=True)) / sum(weight)
    least = 0.05 * np.mean(np.diag(covariance)) + 1e-9
    values, vectors = np.linalg.eigh(covariance - within * per_record)
    covariance = sum(
        max(value, least) * np.outer(vectors[:, i], vectors[:, i]) for i, value in enumerate(values)
    )
    share = contenders(standing, [True] * n_models)
    gap_level = sum(share[m] * (local[m] - standing[m]) for m in models)
    mean = [
        standing[m] + trust * (local[m] - standing[m] - gap_level) + level * gap_level
        for m in models
    ]
    return np.array(mean), covariance * n_tasks / max(n_tasks - 2, 1), trust, optimism


def shrunk(error, ran, weight):
    """Weighted covariance around zero, shrunk as Ledoit and Wolf do to a compound-symmetric one."""
    n_tasks, n_models = error.shape
    sample = np.full((n_models, n_models), np.nan)
    for i in range(n_models):
        for j in range(n_models):
            both = [z for z in range(n_tasks) if ran[z, i] and ran[z, j]]
            if both:
                total = sum(weight[z] for z in both)
                sample[i, j] = sum(weight[z] * error[z, i] * error[z, j] for z in both) / total
    variance = np.nanmean(np.diag(sample))
    apart = [
        sample[i, j]
        for i in range(n_models)
        for j in range(n_models)
        if i != j and not np.isnan(sample[i, j])
    ]
    target = np.full((n_models, n_models), max(np.mean(apart), 0.0) if apart else 0.0)
    np.fill_diagonal(target, variance)
    sample = np.where(np.isnan(sample), target, sample)
    filled = np.where(ran, error, 0.0)
    away = ((sample - target) ** 2).sum()
    noise = (
        sum(
            weight[z] ** 2 * ((np.outer(filled[z], filled[z]) - sample) ** 2).sum()
            for z in range(n_tasks)
        )
        / sum(weight) ** 2
    )
    intensity = min(1.0, noise / away) if away > 0 else 1.0
    return intensity * target + (1 - intensity) * sample
