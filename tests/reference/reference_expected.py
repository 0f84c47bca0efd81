"""Slow, obvious float64 twin of the fused decision of the rule `auto`, one loop at a time."""

from __future__ import annotations

import math

import numpy as np

NAN, INF = float("nan"), float("inf")


def expect(
    learnt,
    queries,
    neighbours,
    similarities,
    outcomes,
    *,
    prior,
    preference,
    k,
    kappa,
    distance_limit,
    fallback_model,
    home,
    allowed=None,
):
    """Rows (model, score, margin, distance, fallback, strange, scores) of all queries."""
    return [
        decision(
            learnt, queries[i], neighbours[i], similarities[i], outcomes, prior, preference, k,
            kappa, distance_limit, fallback_model, home, allowed,
        )
        for i in range(len(neighbours))
    ]  # fmt: skip


def decision(
    learnt,
    x,
    ids,
    sims,
    outcomes,
    prior,
    preference,
    k,
    kappa,
    limit,
    fallback_model,
    home,
    allowed,
):
    models = range(len(prior))
    near = [(int(r), float(s)) for r, s in zip(ids[:kappa], sims[:kappa], strict=True) if r >= 0]
    voters = [int(r) for r in ids[:k] if r >= 0]
    u = mean(max(1.0 - s, 1e-7) for _, s in near)
    chance = strangeness(learnt, u, [r for r, _ in near])
    votes = [vote_of(outcomes[:, m], voters, float(prior[m])) for m in models]
    standing = [float(value) for value in learnt["standing"]]
    level = 0.0
    for m in models:
        level += float(learnt["share"][m]) * (votes[m] - standing[m])
    scores = []
    for m in models:
        sides = [
            float(learnt["apart"][side]) * ((votes[m] - standing[m]) - level)
            + float(learnt["level"][side]) * level
            + view_of(learnt, x, voters, side, m)
            for side in range(2)
        ]
        mixed = (1.0 - chance) * sides[0] + chance * sides[1]
        scores.append(np.float32(standing[m] + mixed))
    among = [m for m in models if allowed is None or allowed[m]]
    supported = any(not math.isnan(outcomes[r, m]) for r in voters for m in among)
    fallback = not supported or not u <= limit
    model = fallback_model if fallback else choice(learnt, scores, among, home, preference, chance)
    others = [scores[m] for m in among if m != model]
    margin = scores[model] - max(others) if others else np.float32(0)
    return model, scores[model], margin, np.float32(u), fallback, np.float32(chance), scores


def choice(learnt, scores, among, home, preference, chance):
    """The most preferred model among those within the tolerance of the best."""
    side = 1 if chance > 0.5 else 0
    margin, tolerance = learnt["margin"][side], learnt["tolerance"][side]
    own = float(scores[home])
    bar = float(np.float32(own + margin))
    leads = {m for m in among if float(scores[m]) >= bar or m == home}
    counted = {m: float(scores[m]) if m in leads else min(float(scores[m]), own) for m in among}
    least = float(np.float32(max(counted.values()) - tolerance))
    trusted = bar <= own  # leads count, and so does the neighbourhood
    floor = float(learnt["standing"][home]) - tolerance
    near = {m for m in among if trusted or float(learnt["standing"][m]) >= floor}
    equal = (
        m for m in among if counted[m] >= least and (m in leads or (tolerance > 0 and m in near))
    )
    return min(equal, key=lambda m: preference[m])


def strangeness(learnt, u, near):
    """Chance that a prompt is of an unknown kind; certain without a neighbour."""
    if not near:
        return 1.0
    own = mean(float(learnt["own_distance"][r]) for r in near)
    datasets = [int(learnt["dataset"][r]) for r in near]
    purity = max(datasets.count(d) for d in datasets) / len(datasets)
    gate = [float(value) for value in learnt["gate"]]
    z = gate[0] + gate[1] * math.log(u + 0.05)
    z = z + gate[2] * math.log(own + 0.05)
    z = z + gate[3] * purity
    return 1.0 / (1.0 + math.exp(-z))


def vote_of(outcomes, voters, prior):
    """Mean outcome of one model on the voters that it was run on."""
    found = [float(outcomes[r]) for r in voters if not math.isnan(outcomes[r])]
    return mean(found) if found else prior


def view_of(learnt, x, voters, side, m):
    """What embedding and datasets add to one model's score, for known or for strange prompts."""
    column = side * (len(learnt["offset"]) // 2) + m
    linear = float(learnt["offset"][column])
    for i in range(len(x)):
        linear += float(x[i]) * float(learnt["linear"][i, column])
    total = 0.0
    for r in voters:
        total += float(learnt["of_dataset"][learnt["dataset"][r], column])
    return linear + total / max(len(voters), 1)


def mean(values):
    """Mean in the order of the values; NaN of none."""
    total, count = 0.0, 0
    for value in values:
        total, count = total + value, count + 1
    return total / count if count else NAN
