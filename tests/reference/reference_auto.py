"""Slow, obvious float64 twin of `auto` for tasks (benchrouter.scores.expected.task_accuracies)."""

from __future__ import annotations

import math

import numpy as np


def estimate(
    accuracy,
    standing_z,
    local_z,
    distance_z,
    n_records,
    within,
    standing,
    local,
    u,
    s,
    trusting=None,
):
    """Mean and covariance of the accuracies, and trust; arguments of auto.estimate."""
    if trusting is None:
        trusting = leaving_pays(accuracy, standing_z, local_z, distance_z, n_records, within, s)
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
    if not trusting:
        trust = 0.0
    level = slope([(weight[z], r[4], r[3]) for z, r in enumerate(rows)])
    own = own_noise = room = 0.0
    for z, (share, y, x, y_level, x_level) in enumerate(rows):
        apart = [y[m] - y_level - trust * (x[m] - x_level) if ran[z, m] else 0.0 for m in models]
        own += weight[z] * sum(share[m] * apart[m] ** 2 for m in models)
        of_mean = sum(share[i] * share[j] * within[i, j] for i in models for j in models)
        of_models = sum(share[m] * within[m, m] for m in models)
        own_noise += weight[z] * (of_models - of_mean) / n_records[z]
        room += weight[z] * (1 - sum(share[m] ** 2 for m in models))
    own = max(own - own_noise, math.sqrt(2 / n_tasks) * own_noise) / max(room, 1e-12)
    shared = 0.0
    for z, (share, _, _, y_level, x_level) in enumerate(rows):
        of_mean = sum(share[i] * share[j] * within[i, j] for i in models for j in models)
        shared += weight[z] * (
            (y_level - level * x_level) ** 2
            - of_mean / n_records[z]
            - own * sum(share[m] ** 2 for m in models)
        )
    shared = max(shared / sum(weight), 0.0)
    covariance = np.array(
        [[shared + (own + 1e-9 if i == j else 0) for j in models] for i in models]
    )
    share = contenders(standing, [True] * n_models)
    gap_level = sum(share[m] * (local[m] - standing[m]) for m in models)
    mean = [
        standing[m] + trust * (local[m] - standing[m] - gap_level) + level * gap_level
        for m in models
    ]
    mean = np.array([min(max(value, 0.0), 1.0) for value in mean])
    return mean, covariance * n_tasks / max(n_tasks - 2, 1), trust


def leaving_pays(accuracy, standing, local, distance, n_records, within, s):
    """Whether held-out choices that left the best standing gained, with five that did as told."""
    n_tasks, n_models = accuracy.shape
    if n_tasks < 3:
        return True
    gained, promised = [], []
    for z in range(n_tasks):
        others = [y for y in range(n_tasks) if y != z]
        mean, _, _ = estimate(
            *(a[others] for a in (accuracy, standing, local, distance, n_records)),
            *(within, standing[z], local[z], distance[z], s, True),
        )
        there = [m for m in range(n_models) if not np.isnan(accuracy[z, m])]
        best = max(there, key=lambda m, mean=mean: mean[m])
        kept = max(there, key=lambda m, z=z: standing[z, m])
        if mean[best] > mean[kept]:
            gained.append(accuracy[z, best] - accuracy[z, kept])
            promised.append(mean[best] - mean[kept])
    return not gained or sum(gained) + 5 * 0.75 * np.mean(promised) > 0


def with_labels(mean, covariance, labels, within):
    """Mean and covariance after labels; arguments of auto.with_labels, a spread being known."""
    n_models = len(mean)
    has = [not np.isnan(labels[:, m]).all() for m in range(n_models)]
    seen = [m for m in range(n_models) if has[m]]
    noise = np.array([[noise_of(mean, labels, within, i, j) for j in seen] for i in seen])
    total = np.array([[covariance[i, j] for j in seen] for i in seen]) + noise
    gain = covariance[:, seen] @ np.linalg.inv(total + 1e-9 * np.eye(len(seen)))
    observed = [np.nanmean(labels[:, m]) for m in seen]
    moved = mean + gain @ (observed - mean[seen])
    for m in range(n_models):
        alone, variance = mean[m], covariance[m, m]
        if has[m]:
            own_noise = noise_of(mean, labels, within, m, m)
            alone += variance / (variance + own_noise) * (np.nanmean(labels[:, m]) - mean[m])
            variance *= own_noise / (variance + own_noise)
        reach = 1.2815515655446004 * math.sqrt(variance)
        moved[m] = min(max(moved[m], alone - reach), alone + reach)
    top = max(moved[m] for m in seen)
    for m in range(n_models):
        if not has[m]:
            moved[m] = min(moved[m], max(mean[m], top))
    return np.clip(moved, 0, 1), covariance - gain @ covariance[seen]


def noise_of(mean, labels, within, i, j):
    """Covariance of the sampling errors of two models' means over their labels."""
    known = ~np.isnan(labels)
    both = (known[:, i] & known[:, j]).sum()
    spread = [math.sqrt(p * (1 - p)) for p in np.clip(mean, 0.05, 0.95)]
    correlation = within[i, j] / math.sqrt(within[i, i] * within[j, j])
    return correlation * spread[i] * spread[j] * both / (known[:, i].sum() * known[:, j].sum())


def calibration(accuracy, standing, local, distance, n_records, within, s):
    """Optimism and sorted errors of choices without labels; arguments as of `estimate`."""
    n_tasks, n_models = accuracy.shape
    errors = []
    trusting = leaving_pays(accuracy, standing, local, distance, n_records, within, s)
    for z in range(n_tasks):
        others = [y for y in range(n_tasks) if y != z]
        mean, covariance, _ = estimate(
            *(a[others] for a in (accuracy, standing, local, distance, n_records)),
            *(within, standing[z], local[z], distance[z], s, trusting),
        )
        there = [m for m in range(n_models) if not np.isnan(accuracy[z, m])]
        best = max(there, key=lambda m, mean=mean: mean[m])
        chance = min(max(mean[best], 0.05), 0.95)
        variance = covariance[best, best] + chance * (1 - chance) / n_records[z]
        errors.append((accuracy[z, best] - mean[best]) / math.sqrt(variance))
    optimism = max(-sum(errors) / (len(errors) + 5), 0.0)
    return optimism, [abs(e + optimism) for e in errors]
