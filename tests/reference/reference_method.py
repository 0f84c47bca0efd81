"""The paper's method, slow and obvious, in float64: full distance matrix, sorting, loops."""

from __future__ import annotations

import numpy as np


def neighbours_of(row, pool, similarities):
    """Records of the pool by (−similarity, record number)."""
    return sorted(pool, key=lambda record: (-similarities[row, record], record))


def predict(row, pool, similarities, correct, prior, k):
    """g of one record: mean present correctness of its k nearest, the prior without any."""
    nearest = neighbours_of(row, pool, similarities)[:k]
    votes = []
    for m in range(correct.shape[1]):
        present = [correct[e, m] for e in nearest if not np.isnan(correct[e, m])]
        votes.append(sum(present) / len(present) if present else prior[m])
    return np.array(votes)


def standing(correct, dataset, kept):
    """Macro average over the kept datasets; every model is on every dataset here."""
    means = []
    for d in kept:
        rows = correct[dataset == d]
        means.append(
            [np.mean([v for v in rows[:, m] if not np.isnan(v)]) for m in range(rows.shape[1])]
        )
    return np.mean(means, axis=0)


def task(rows, pool, similarities, correct, prior, k, kappa, t=0.5):
    """u, S1, S2 and p of the records `rows` as a task, predicted from the records of `pool`."""
    g = np.array([predict(row, pool, similarities, correct, prior, k) for row in rows])
    distances = []
    for row in rows:
        nearest = neighbours_of(row, pool, similarities)[:kappa]
        distances.append(np.mean([max(1 - float(similarities[row, e]), 1e-7) for e in nearest]))
    right = np.where(np.isnan(correct[rows]), np.nan, (g > t) == (correct[rows] > 0.5))
    return np.mean(distances), g.mean(axis=0), (g > t).mean(axis=0), np.nanmean(right, axis=0)


def smooth(u, pair_u, pair_p, sigma):
    """Eq. 14."""
    kernel = np.array([np.exp(-((u - z) ** 2) / (2 * sigma**2)) for z in pair_u])
    return (np.array(pair_p) * kernel[:, None]).sum(axis=0) / kernel.sum()


def leave_one_dataset_out(embeddings, correct, dataset, k, kappa, sigma, nesting):
    """u, S1, S2, p, p̂ of every dataset; training pairs at α = 0."""
    similarities = (embeddings.astype(np.float64) @ embeddings.astype(np.float64).T).astype(
        np.float32
    )
    codes = sorted(set(dataset.tolist()))
    everything = range(len(dataset))

    def held_out(d, also=None):
        pool = [e for e in everything if dataset[e] not in (d, also)]
        prior = standing(correct, dataset, [c for c in codes if c not in (d, also)])
        rows = [e for e in everything if dataset[e] == d]
        return task(rows, pool, similarities, correct, prior, k, kappa)

    results = []
    for d in codes:
        u, s1, s2, p = held_out(d)
        pairs = [held_out(z, d if nesting == "strict" else None) for z in codes if z != d]
        p_hat = smooth(u, [pair[0] for pair in pairs], [pair[3] for pair in pairs], sigma)
        results.append((u, s1, s2, p, p_hat))
    return results
