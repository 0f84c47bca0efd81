"""Learn the rule `auto` from held-out records: how far to trust each view, near and far.

Everything is a closed form, or a few steps of a convex problem, on the same held-out records: left
out alone, they stand for prompts of known kinds; left out with their dataset, for strange ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array, Ids
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.expected.contenders import contenders
from benchrouter.scores.expected.prompt_scores import SCALE, Expectation, chance_features
from benchrouter.scores.expected.regression import least_squares, logistic, sigmoid
from benchrouter.scores.expected.views import (
    VIEWS,
    Linear,
    Records,
    linear_views,
    of_datasets,
    of_votes,
)
from benchrouter.scores.held_out import MOST_VOTERS, HeldOut

# Numbers of voting neighbours to choose from, by held-out error. More cost more time in search.
NEIGHBOURS = (8, 16, MOST_VOTERS)
STRANGE_SHARE = 1.0 / 3.0  # share of prompts assumed strange before any is seen
SAMPLE = 500  # records of each dataset to learn from
EQUAL_WEIGHTS = 1.0  # weight of the prior that all views deserve the same weight
LARGEST_WEIGHT = 1.5
RIDGE = 1e-3  # of the mean diagonal: views that say the same share their weight
GATE_PENALTY = 1e-2
CHANCE_PENALTY = 1e-4
FIXED = 1e9  # a penalty that keeps a weight at its prior
ERRORS = 1.0  # standard errors that a gain on held-out records must exceed


@dataclass(frozen=True)
class Sample:
    """Held-out records with their neighbours.

    Attributes
    ----------
    rows : int64 array, shape (n,)
    alone : Neighbours
        Arrays of shape (n, width): nearest records but the row and those with the same prompt.
    apart : Neighbours
        The same, without the row's dataset; none where there is no other.
    """

    rows: Ids
    alone: Neighbours
    apart: Neighbours


def sampled(held_out: HeldOut, seed: int) -> Sample:
    """At most 500 records of a held-out dataset, drawn at random."""
    n, width = len(held_out.rows), NEIGHBOURS[-1]
    kept = np.arange(n)
    if n > SAMPLE:
        rng = np.random.default_rng([seed, n])  # whatever the dataset's number
        kept = np.sort(rng.choice(n, SAMPLE, replace=False))
    alone, apart = (
        Neighbours(found.ids[kept, :width], found.similarities[kept, :width])
        for found in (held_out.alone, held_out.apart)
    )
    return Sample(held_out.rows[kept], alone, apart)


def joined(samples: list[Sample]) -> Sample:
    """Samples of several datasets as one."""
    alone, apart = (
        Neighbours(*(np.concatenate(parts) for parts in zip(*lists, strict=True)))
        for lists in ([s.alone for s in samples], [s.apart for s in samples])
    )
    return Sample(np.concatenate([s.rows for s in samples]), alone, apart)


def own_distances(held_out: HeldOut, kappa: int) -> NDArray[np.float32]:
    """Mean distance of held-out records to their nearest others.

    Returns
    -------
    float32 array, shape (n,)
        NaN for a record without any other.
    """
    similarities = held_out.alone.similarities[:, :kappa]
    known = np.isfinite(similarities).any(axis=1)
    own = np.full(len(similarities), np.nan, np.float32)
    own[known] = formulas.prompt_distances(similarities[known])
    return own


def filled_by_dataset(
    own_distance: NDArray[np.float32], dataset: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Fill distances that were not measured with the mean of their dataset.

    Parameters
    ----------
    own_distance : float32 array, shape (n_records,)
        NaN = not measured.
    dataset : int32 array, shape (n_records,)

    Returns
    -------
    float32 array, shape (n_records,)
        The mean of all where a dataset has none; 1, as of unrelated texts, where nothing has.
    """
    known = ~np.isnan(own_distance)
    if known.all():
        return own_distance
    overall = float(own_distance[known].mean(dtype=np.float64)) if known.any() else 1.0
    count = np.bincount(dataset[known], minlength=int(dataset.max()) + 1)
    total = np.bincount(dataset[known], own_distance[known], minlength=len(count))
    means = np.where(count > 0, total / np.maximum(count, 1), overall).astype(np.float32)
    return np.where(known, own_distance, means[dataset])


def extended(learnt: Expectation, records: Records) -> Expectation:
    """Apply what was learnt from the first records to a benchmark that has grown.

    Standings and slopes stay those of the last fit; the means of datasets are today's.
    """
    own_distance = np.full(len(records.dataset), np.nan, np.float32)
    own_distance[: len(learnt.own_distance)] = learnt.own_distance
    return replace(
        learnt,
        of_dataset=_of_dataset(
            records.means, learnt.standing, learnt.share, learnt.apart, learnt.level
        ),
        own_distance=filled_by_dataset(own_distance, records.dataset),
    )


@dataclass(frozen=True)
class _Side:
    """Held-out records taken as known prompts, or as strange ones: n records, M models."""

    strange: bool
    dataset: NDArray[np.int32]  # (n,)
    weight: Array  # (n,) every dataset weighs the same; they add up to 1
    standing: Array  # (n, M)
    share: Array  # (n, M) weights of the contenders, 0 where a model was not run
    everyone: Array  # (n, M) the same of all models
    found: Array  # (n, M) score − standing, NaN = not run
    linear: Array  # (n_penalties, n, M)
    features: Array  # (n, 4) of strangeness


def learn(
    records: Records,
    sample: Sample,
    own_distance: NDArray[np.float32],
    *,
    kappa: int,
    correctness: NDArray[np.float32] | None,
    preferred: NDArray[np.int32],
    threads: int = 0,
) -> Expectation:
    """Learn what the rule `auto` needs.

    Parameters
    ----------
    records : Records
    sample : Sample
        Of records of the datasets that count.
    own_distance : float32 array, shape (n_records,)
        Mean distance of each record to its nearest others.
    kappa : int
        Neighbours that measure distance.
    correctness : float32 array, shape (n_records, n_models), or None
        0, 1 or NaN; None where it is not known.
    preferred : int32 array, shape (n_models,)
        Rank of every model among equals.
    threads : int
        0 = all.

    Returns
    -------
    Expectation
        Arrays over all datasets and records of `records`.
    """
    standing = records.standing()
    deviation = _deviation(records.means[records.codes])
    fitted, alone, apart = linear_views(records, sample.rows)
    sides = [_side(records, sample, alone, own_distance, deviation, kappa, strange=False)]
    if (sample.apart.ids >= 0).any():
        sides.append(_side(records, sample, apart, own_distance, deviation, kappa, strange=True))
    gate = _gate(sides)
    strange = [sigmoid(side.features @ gate) for side in sides]
    tried = []
    for k in NEIGHBOURS:
        views = [_views(side, records, sample, k, threads) for side in sides]
        tried.append((k, views, *_slopes(sides, views, strange)))
    k, views, apart_slopes, level_slopes, _ = _fewest_neighbours(tried)
    expected = [
        side.standing + _combined(side, view, chance, apart_slopes, level_slopes)
        for side, view, chance in zip(sides, views, strange, strict=True)
    ]
    margin, tolerance = _margins(sides, expected, preferred)
    counted = records.scores[np.isin(records.dataset, records.codes)]
    unit = bool(np.nanmin(counted) >= 0.0 and np.nanmax(counted) <= 1.0)
    calibration, spread = None, np.zeros(2)
    if correctness is not None:
        right = correctness[sample.rows].astype(np.float64)
        calibration = _calibration(sides, expected, strange, right, unit)
        spread = _spread(sides, expected, strange, right, calibration, unit)
    everyone = np.ones((1, len(standing)), np.bool_)
    share = contenders(standing[None], standing.max(), deviation, everyone)[0]
    weights, offset = _linear(fitted, standing, share, (apart_slopes, level_slopes))
    return Expectation(
        neighbours=k,
        standing=standing,
        share=share,
        apart=apart_slopes,
        level=level_slopes,
        weights=weights.astype(np.float32),
        offset=offset,
        of_dataset=_of_dataset(records.means, standing, share, apart_slopes, level_slopes),
        own_distance=own_distance,
        gate=gate,
        margin=margin,
        tolerance=tolerance,
        calibration=calibration,
        spread=spread,
        unit=unit,
    )


def _deviation(means: Array) -> float:
    """Typical size of a dataset's own effect on a model, what is common to all models left out."""
    known = ~np.isnan(means)
    count = known.sum(axis=0)
    apart = means - np.where(known, means, 0.0).sum(axis=0) / np.maximum(count, 1)
    some = known.sum(axis=1)
    apart = apart - (np.where(known, apart, 0.0).sum(axis=1) / np.maximum(some, 1))[:, None]
    return float(np.sqrt(np.mean(apart[known] ** 2)))


def _split(values: Array, share: Array) -> tuple[Array, Array]:
    """Differences between models, and what is common to the contenders, along the last axis."""
    level = (values * share).sum(axis=-1, keepdims=True)
    return values - level, np.broadcast_to(level, values.shape)


def _side(
    records: Records,
    sample: Sample,
    linear: Array,
    own_distance: NDArray[np.float32],
    deviation: float,
    kappa: int,
    *,
    strange: bool,
) -> _Side:
    """One side; records without any neighbour or score on it weigh nothing."""
    neighbours = sample.apart if strange else sample.alone
    own = records.dataset[sample.rows]
    score = records.scores[sample.rows].astype(np.float64)
    standing = np.broadcast_to(records.standing(), score.shape)
    if strange:
        standing = np.empty_like(score)
        for code in records.codes:
            standing[own == code] = records.standing(int(code))
    known = ~np.isnan(score)
    usable = known.any(axis=1) & (neighbours.ids[:, 0] >= 0)
    count = np.bincount(own[usable], minlength=len(records.means))
    weight = np.where(usable, 1.0 / np.maximum(count[own], 1), 0.0)
    best = standing.max(axis=1, keepdims=True)
    return _Side(
        strange=strange,
        dataset=own,
        weight=weight / max(weight.sum(), 1e-300),  # a single record has no neighbour
        standing=standing,
        share=contenders(standing, best, deviation, known),
        everyone=contenders(standing, best, deviation, np.ones_like(known)),
        found=score - standing,
        linear=linear - standing,
        features=_features(neighbours, records.dataset, own_distance, kappa),
    )


def _features(
    neighbours: Neighbours,
    dataset: NDArray[np.int32],
    own_distance: NDArray[np.float32],
    kappa: int,
) -> Array:
    """1, log of the distance, of the neighbours' own, purity; as csrc/scores/expect.hpp."""
    ids, similarities = neighbours.ids[:, :kappa], neighbours.similarities[:, :kappa]
    there = ids >= 0
    count = np.maximum(there.sum(axis=1), 1)
    near = np.where(there, np.maximum(1.0 - similarities.astype(np.float64), 1e-7), 0.0)
    own = np.where(there, own_distance[ids].astype(np.float64), 0.0)
    codes = np.where(there, dataset[ids], -1)
    most = np.zeros(len(ids), np.int64)
    for j in range(ids.shape[1]):
        most = np.maximum(most, (there & (codes == codes[:, j : j + 1])).sum(axis=1) * there[:, j])
    logs = (np.log(sums.sum(axis=1) / count + SCALE) for sums in (near, own))
    return np.stack([np.ones(len(ids)), *logs, most / count], axis=1)


def _gate(sides: list[_Side]) -> Array:
    """Logistic regression of being strange; with one side only, no prompt is."""
    n_features = sides[0].features.shape[1]
    if len(sides) == 1:
        return np.array([-40.0, *np.zeros(n_features - 1)])
    features = np.concatenate([side.features for side in sides])
    weight = np.concatenate([side.weight * _prior_share(side) for side in sides])
    outcome = np.concatenate([np.full(len(side.weight), float(side.strange)) for side in sides])
    kept = weight > 0.0
    features, weight, outcome = features[kept], weight[kept], outcome[kept]
    mean = weight @ features / weight.sum()
    scale = np.sqrt(weight @ (features - mean) ** 2 / weight.sum())
    mean[0], scale[0] = 0.0, 1.0
    scale[scale < 1e-9] = 1.0
    penalty = np.array([1e-6, *np.full(n_features - 1, GATE_PENALTY)])
    standard = logistic((features - mean) / scale, outcome, weight, np.zeros(n_features), penalty)
    gate = standard / scale
    gate[0] -= gate[1:] @ mean[1:]
    return np.asarray(gate)


def _prior_share(side: _Side) -> float:
    return STRANGE_SHARE if side.strange else 1.0 - STRANGE_SHARE


def _views(side: _Side, records: Records, sample: Sample, k: int, threads: int) -> Array:
    """All views of a side's records, shape (n_views, n, M)."""
    neighbours = sample.apart if side.strange else sample.alone
    near = of_votes(neighbours, k, records, side.standing, threads)
    kinds = of_datasets(neighbours, k, records, side.standing, sample.rows, alone=not side.strange)
    return np.stack([near, kinds, *side.linear])


def _slopes(
    sides: list[_Side], views: list[Array], strange: list[Array]
) -> tuple[Array, Array, Array]:
    """Weights of the views, of differences and of levels, shape (2, n_views) each.

    And by how much they lower the squared error of differences, for each dataset of each side.
    """
    n = len(VIEWS)
    gram, moment = np.zeros((2, 2 * n, 2 * n)), np.zeros((2, 2 * n))
    apart, level = [], []
    for side, view, chance in zip(sides, views, strange, strict=True):
        found, found_level = _split(np.where(np.isnan(side.found), 0.0, side.found), side.share)
        differences, levels = _split(view, side.share)
        factor = np.repeat(np.stack([1.0 - chance, chance]), n, axis=0)
        root = np.sqrt(side.weight * _prior_share(side))
        x = np.tile(differences, (2, 1, 1)) * factor[:, :, None]
        apart.append((x * (y_root := root[:, None] * np.sqrt(side.share)), found * y_root))
        v = np.tile(levels[:, :, 0], (2, 1)) * factor * root
        level.append((v[:, :, None], (found_level[:, 0] * root)[:, None]))
        for i, (row, target) in enumerate((apart[-1], level[-1])):
            flat = row.reshape(2 * n, -1)
            gram[i] += flat @ flat.T
            moment[i] += flat @ target.ravel()
    slopes = np.stack([_weights(g, m) for g, m in zip(gram, moment, strict=True)])
    lowered = []
    for side, (x, y) in zip(sides, apart, strict=True):
        left = (y**2 - (y - np.einsum("j,jnm->nm", slopes[0], x)) ** 2).sum(axis=1)
        codes = np.unique(side.dataset)
        lowered.append(np.bincount(side.dataset, left, minlength=codes[-1] + 1)[codes])
    for i, part in enumerate((apart, level)):
        slopes[i, n:] *= _kept(slopes[i], sides[-1].dataset, *part[-1]) if len(sides) > 1 else 0.0
    return slopes[0].reshape(2, n), slopes[1].reshape(2, n), np.concatenate(lowered)


def _fewest_neighbours(tried: list[tuple[int, list[Array], Array, Array, Array]]) -> Any:
    """The most neighbours, but where fewer lower the error by more than a standard error."""
    best = tried[-1]
    for other in tried[-2::-1]:
        gain = other[4] - best[4]
        error = float(
            np.sqrt(((gain - gain.mean()) ** 2).sum() * len(gain) / max(len(gain) - 1, 1))
        )
        if gain.sum() > error:
            best = other
    return best


def _weights(gram: Array, moment: Array) -> Array:
    """Weights of the views, drawn towards equal ones by a prior worth as much as the evidence."""
    n = len(moment) // 2
    prior, target = np.zeros_like(gram), np.zeros_like(moment)
    for half in (slice(0, n), slice(n, 2 * n)):
        mean = np.zeros(2 * n)
        mean[half] = 1.0 / n
        spread = float(mean @ gram @ mean)
        common = min(max(float(moment @ mean) / spread, 0.0), 1.0) if spread > 0.0 else 0.0
        prior[half, half] = EQUAL_WEIGHTS * np.diag(np.diag(gram)[half])
        target[half] = common / n
    ridge = RIDGE * np.trace(gram) / len(moment) * np.eye(len(moment))
    return least_squares(gram + prior + ridge, moment + prior @ target, LARGEST_WEIGHT)


def _kept(slopes: Array, dataset: NDArray[np.int32], x: Array, y: Array) -> float:
    """Share of the strange weights that the spread over held-out datasets leaves, in [0, 1].

    The common factor γ of the strange weights that each dataset asks for has an average and a
    standard error over datasets; γ²/(γ² + error²) is kept, and (D − 2)/D of that (James and Stein).
    """
    codes = np.unique(dataset)
    n_datasets, half = len(codes), len(slopes) // 2
    if n_datasets < 3:
        return 0.0
    known = np.einsum("j,jnm->nm", slopes[:half], x[:half])
    strange = np.einsum("j,jnm->nm", slopes[half:], x[half:])
    squares, products = (strange**2).sum(axis=1), (strange * (y - known)).sum(axis=1)
    size, gain = (
        np.bincount(dataset, values, minlength=codes[-1] + 1)[codes]
        for values in (squares, products)
    )
    if size.sum() <= 0.0:
        return 0.0
    factor = gain.sum() / size.sum()
    if factor <= 0.0:
        return 0.0
    error = ((gain - factor * size) ** 2).sum() / size.sum() ** 2 * n_datasets / (n_datasets - 1)
    return float(factor**2 / (factor**2 + error) * (n_datasets - 2) / n_datasets)


def _combined(side: _Side, views: Array, strange: Array, apart: Array, level: Array) -> Array:
    """What the views add to the standings of held-out records, shape (n, M)."""
    differences, levels = _split(views, side.everyone)
    factor = np.stack([1.0 - strange, strange])
    return np.asarray(
        np.einsum("sv,sn,vnm->nm", apart, factor, differences)
        + np.einsum("sv,sn,vnm->nm", level, factor, levels)
    )


def _of_dataset(
    means: Array, standing: Array, share: Array, apart: Array, level: Array
) -> NDArray[np.float32]:
    """What a neighbour of each dataset adds, shape (D, 2, M); 0 for a model not run there."""
    deviation = np.where(np.isnan(means), 0.0, means - standing)
    differences, levels = _split(deviation, share)
    sides = [a[1] * differences + v[1] * levels for a, v in zip(apart, level, strict=True)]
    return np.stack(sides, axis=1).astype(np.float32)


def _linear(
    fitted: Linear, standing: Array, share: Array, slopes: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Weights of the embedding, shape (dim, 2, M), and what is added, shape (2, M)."""
    differences, levels = _split(fitted.weights, share)
    offset = fitted.level - standing - np.einsum("d,pdm->pm", fitted.centre, fitted.weights)
    offset_apart, offset_level = _split(offset, share)
    apart, level = (part[:, 2:] for part in slopes)
    weights = np.einsum("sp,pdm->dsm", apart, differences) + np.einsum("sp,pdm->dsm", level, levels)
    return weights, apart @ offset_apart + level @ offset_level


def _margins(
    sides: list[_Side], expected: list[Array], preferred: NDArray[np.int32]
) -> tuple[Array, Array]:
    """When to leave the best on average, and which differences are none; shape (2,) each.

    It is left where that gained more than a standard error on held-out records, else never. The
    tolerance is the standard error that the mean difference between the two best models of each
    record would have on so many records if there were none.
    """
    margin, tolerance = np.full(2, np.inf), np.zeros(2)
    for i, (side, score) in enumerate(zip(sides, expected, strict=True)):
        here = np.arange(len(score))
        observed = side.found + side.standing
        first = _best(score, preferred)
        others = score.copy()
        others[here, first] = -np.inf
        home, second = _best(side.standing, preferred), _best(others, preferred)
        gain, ahead = (
            np.nan_to_num(observed[here, first] - observed[here, other]) for other in (home, second)
        )
        mean = float(side.weight @ gain)
        if mean > ERRORS * _error_of_mean(side, gain - mean):
            margin[i] = 0.0
        tolerance[i] = np.sqrt(((side.weight * ahead) ** 2).sum())
    if len(sides) == 1:
        margin[1], tolerance[1] = margin[0], tolerance[0]
    return margin, tolerance


def _best(values: Array, preferred: NDArray[np.int32]) -> Ids:
    """Position of each row's largest value; ties by preference."""
    order = np.argsort(preferred)
    return np.asarray(order[np.argmax(values[:, order], axis=1)])


def _error_of_mean(side: _Side, deviations: Array) -> float:
    """Standard error of a mean over datasets, from what each record deviates from it.

    Prompts of known kinds come from these very datasets, so only the records are a sample; strange
    ones come from others, so the datasets are.
    """
    weighted = side.weight * deviations
    if not side.strange:
        return float(np.sqrt((weighted**2).sum()))
    codes = np.unique(side.dataset[side.weight > 0.0])
    if len(codes) < 2:
        return float("inf")
    sums = np.bincount(side.dataset, weighted)[codes]
    return float(np.sqrt((sums**2).sum() * len(codes) / (len(codes) - 1)))


def _calibration(
    sides: list[_Side], expected: list[Array], strange: list[Array], right: Array, unit: bool
) -> Array:
    """Slope and intercept of the chance of success, for known and for strange prompts."""
    rows, outcomes, weights = [], [], []
    known = ~np.isnan(right)
    for side, score, chance in zip(sides, expected, strange, strict=True):
        rows.append(_chance_rows(score, chance, unit)[known])
        outcomes.append(right[known])
        weight = side.weight * _prior_share(side) / np.maximum(known.sum(axis=1), 1)
        weights.append(np.broadcast_to(weight[:, None], known.shape)[known])
    prior, penalty = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, CHANCE_PENALTY)
    features, outcome, weight = map(np.concatenate, (rows, outcomes, weights))
    found = logistic(features, outcome, weight, prior, penalty)
    falling = (found < 0.0) & np.array([True, False, True, False])
    if falling.any():  # a larger score never means a smaller chance
        prior, penalty = np.where(falling, 0.0, prior), np.where(falling, FIXED, penalty)
        found = logistic(features, outcome, weight, prior, penalty)
        found[falling] = 0.0
    return found.reshape(2, 2)


def _chance_rows(score: Array, strange: Array, unit: bool) -> Array:
    """Features of the logistic regression, shape (n, M, 4)."""
    feature = chance_features(score, unit)
    known = np.broadcast_to((1.0 - strange)[:, None], feature.shape)
    other = np.broadcast_to(strange[:, None], feature.shape)
    return np.stack([known * feature, known, other * feature, other], axis=-1)


def _spread(
    sides: list[_Side],
    expected: list[Array],
    strange: list[Array],
    right: Array,
    calibration: Array,
    unit: bool,
) -> Array:
    """Standard deviation over datasets of success of the leading model about its chance.

    What so many records scatter by themselves is taken out.
    """
    spread = np.zeros(2)
    for i, (side, score, chance) in enumerate(zip(sides, expected, strange, strict=True)):
        here, first = np.arange(len(score)), score.argmax(axis=1)
        rows = _chance_rows(score, chance, unit)[here, first]
        p, y = sigmoid(rows @ calibration.ravel()), right[here, first]
        known = ~np.isnan(y) & (side.weight > 0.0)
        count = np.bincount(side.dataset[known])
        there = count > 0
        error, noise = (
            np.bincount(side.dataset[known], values[known])[there] / count[there]
            for values in (np.where(known, y, 0.0) - p, p * (1.0 - p))
        )
        if there.any():
            variance = float(np.mean(error**2 - noise / count[there]))
            spread[i] = np.sqrt(max(variance, 0.0))
    if len(sides) == 1:
        spread[1] = spread[0]
    return spread
