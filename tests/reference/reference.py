"""The slow, obvious float64 twin of the method."""

from __future__ import annotations

import numpy as np


def votes(neighbours, outcomes, *, prior, k=None, prior_weight=0.0, weights=None):
    """Votes in float64 and support; outcomes are scores (n_records, n_models), NaN = missing."""
    neighbours = neighbours[:, :k]
    outcomes, prior = outcomes.astype(np.float64), prior.astype(np.float64)
    n_queries, n_models = len(neighbours), outcomes.shape[1]
    means = np.empty((n_queries, n_models))
    support = np.zeros((n_queries, n_models), np.int64)
    for i in range(n_queries):
        total, weight = np.zeros(n_models), np.zeros(n_models)
        for j, record in enumerate(neighbours[i]):
            if record < 0:
                continue
            present = ~np.isnan(outcomes[record])
            w = 1.0 if weights is None else float(weights[i, j])
            total[present] += w * outcomes[record, present]
            weight[present] += w
            support[i, present] += 1
        weight += prior_weight
        empty = (support[i] == 0) | (weight == 0)
        means[i] = (total + prior_weight * prior) / np.where(empty, 1.0, weight)
        means[i, empty] = prior[empty]
    return means, support


def distance(ids, similarities):
    """Mean cosine distance of one query to its neighbours; NaN without any."""
    distances = [
        max(1.0 - float(s), 1e-7) for i, s in zip(ids, similarities, strict=True) if i >= 0
    ]
    total = 0.0
    for d in distances:
        total += d
    return total / len(distances) if distances else float("nan")


def interpolated(table, start, step, u):
    """One row of a table over an even grid, linear between its rows, held at its ends."""
    if np.isnan(u):
        return np.full(table.shape[1], np.nan)
    position = min(max((u - start) / step, 0.0), len(table) - 1.0)
    low = int(position)
    high = min(low + 1, len(table) - 1)
    fraction = position - low
    table = table.astype(np.float64)
    return table[low] + fraction * (table[high] - table[low])


def decide(
    neighbours,
    similarities,
    outcomes,
    *,
    prior,
    preference,
    k,
    kappa,
    rule="mean",
    prior_weight=1.0,
    threshold=0.5,
    p_table=None,
    p_start=0.0,
    p_step=1.0,
    distance_limit=np.inf,
    fallback_model=0,
    allowed=None,
    weights=None,
):
    """One (model, score, margin, distance, fallback) per query."""
    means, support = votes(
        neighbours,
        outcomes,
        prior=prior,
        k=k,
        prior_weight=0.0 if rule == "s3" else prior_weight,
        weights=weights,
    )
    candidates = [m for m in range(len(prior)) if allowed is None or allowed[m]]
    decisions = []
    for i in range(len(neighbours)):
        u = distance(neighbours[i, :kappa], similarities[i, :kappa])
        if rule == "s3":
            p = interpolated(p_table, p_start, p_step, u)
            predicted = (means[i] > threshold).astype(np.float64)
            scores = (predicted * p + (1 - predicted) * (1 - p)).astype(np.float32)
        else:
            scores = means[i].astype(np.float32)
        fallback = not support[i, candidates].any() or np.isnan(u) or u > distance_limit
        ranked = sorted(candidates, key=lambda m: (-scores[m], preference[m]))
        model = fallback_model if fallback else ranked[0]
        others = [scores[m] for m in candidates if m != model]
        margin = scores[model] - max(others) if others else np.float32(0)
        decisions.append((model, scores[model], margin, np.float32(u), fallback))
    return decisions


TASK_BLOCK = 1024


def task_scores(neighbours, outcomes, offsets, *, prior, k=None, threshold=0.5, weights=None):
    """S1, S2 and support of every task; summed in blocks of 1024 queries of the task."""
    means, support = votes(neighbours, outcomes, prior=prior, k=k, weights=weights)
    n_tasks, n_models = len(offsets) - 1, outcomes.shape[1]
    s1 = np.full((n_tasks, n_models), np.nan)
    s2 = np.full((n_tasks, n_models), np.nan)
    supported = np.zeros((n_tasks, n_models), np.int64)
    for t in range(n_tasks):
        begin, end = int(offsets[t]), int(offsets[t + 1])
        if begin == end:
            continue
        total = np.zeros(n_models)
        for start in range(begin, end, TASK_BLOCK):
            block = np.zeros(n_models)
            for row in means[start : min(start + TASK_BLOCK, end)]:
                block = block + row
            total = total + block
        s1[t] = total / (end - begin)
        s2[t] = np.count_nonzero(means[begin:end] > threshold, axis=0) / (end - begin)
        supported[t] = np.count_nonzero(support[begin:end], axis=0)
    return s1, s2, supported


LANES = 16


def similarity(query, record):
    """Inner product in float64 over 16 partial sums, halved by a tree, rounded to float32."""
    dim = len(query)
    padded = -(-dim // LANES) * LANES
    products = np.zeros(padded)
    products[:dim] = query.astype(np.float64) * record.astype(np.float64)
    lanes = np.zeros(LANES)
    for sixteen in products.reshape(-1, LANES):
        lanes = lanes + sixteen
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return np.float32(lanes[0])


def rank(queries, records, candidates, k):
    """Best k candidates of every query by (similarity descending, id ascending)."""
    ids = np.full((len(queries), k), -1, np.int64)
    similarities = np.full((len(queries), k), -np.inf, np.float32)
    for i, query in enumerate(queries):
        found = [(-similarity(query, records[c]), int(c)) for c in candidates[i] if c >= 0]
        for j, (negative, c) in enumerate(sorted(found)[:k]):
            ids[i, j] = c
            similarities[i, j] = -negative
    return ids, similarities
