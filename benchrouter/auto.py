"""The score `auto`: each model's accuracy on a new task, how sure that is, and what labels add.

One hierarchical model in closed form. The accuracies of a task are the models' standings on the
benchmark, moved part of the way towards what the task's neighbourhood says, plus an error that is
Gaussian over tasks. How far to move, and how large the error is (and how much of it models share),
is measured on the benchmark's own datasets, each held out in turn. Labels of the task are direct
observations of the accuracies, with the sampling error of so many prompts. The largest of many
estimates tends to be too large: by how much, the held-out datasets show too. docs/quality.md says
how well it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter import scores

TRUST = 0.75  # how far to move towards the neighbourhood before any dataset was held out
TRUST_TASKS = 5.0  # what that is worth, in held-out datasets
REACH = 2.0  # models this many task deviations below the best count e^-1/2 in the measurement
LEAST_VARIANCE = 0.05  # of the error that remains when sampling noise seems to explain all of it
PRIOR_LABELS = 10.0  # what standings are worth, in labels, where no dataset could be held out
COVERAGE = 0.8  # of the interval that users are told
NEVER_CERTAIN = 0.05  # an accuracy counts as this far from 0 and 1 in the noise of labels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutTasks:
    """What holding out each benchmark dataset teaches; Z of them, M models.

    Attributes
    ----------
    accuracy : float64 array, shape (Z, M)
        Mean correctness, NaN = the model did not run there.
    standing : float64 array, shape (Z, M)
        Standings on the other datasets.
    local : float64 array, shape (Z, M)
        As :func:`benchrouter.local.local_accuracy` gives it from the other datasets.
    distance : float64 array, shape (Z,)
        u of the dataset.
    n_records : int64 array, shape (Z,)
        Records behind each accuracy.
    within : float64 array, shape (M, M)
        Covariance of two models' correctness on one record of a dataset, as
        :func:`benchrouter.local.pooled` gives it.
    """

    accuracy: Array
    standing: Array
    local: Array
    distance: Array
    n_records: NDArray[np.int64]
    within: Array


@dataclass(frozen=True)
class Estimate:
    """Accuracy of every model on the task, as a Gaussian (Student-t for intervals).

    Attributes
    ----------
    mean : float64 array, shape (n_models,)
    covariance : float64 array, shape (n_models, n_models)
        NaN where no spread could be measured.
    trust : float
        Share of the way from the standings to the neighbourhood, for differences between models.
    degrees : int
        Degrees of freedom: held-out datasets less one, at least 1; 0 = no spread was measured.
    optimism : float64 array, shape (n_models,)
        By how much `mean` is too large where a model has the largest (the winner's curse).
    """

    mean: Array
    covariance: Array
    trust: float
    degrees: int
    optimism: Array

    def expected(self, model: int) -> float:
        """Accuracy to be expected of a model that was chosen for its large mean, in [0, 1].

        Parameters
        ----------
        model : int
        """
        return min(max(float(self.mean[model] - self.optimism[model]), 0.0), 1.0)


def estimate(
    tasks: HeldOutTasks, standing: Array, local: Array, distance: float, sigma: float = scores.SIGMA
) -> Estimate:
    """Estimate the accuracy of every model on a task without labels.

    With w the weight of a model (near 1 for those that may be best, small for those far below),
    mean = standing + trust·(gap − w·gap) + level·(w·gap), gap = local − standing: `trust` moves the
    differences between models, `level` the difficulty of the task. Both are least-squares slopes
    over the held-out datasets, within [0, 1] and drawn towards 3/4 as by five datasets. A held-out
    dataset counts more the nearer its distance is to the task's (the kernel of arXiv 2309.15789,
    eq. 14).

    Parameters
    ----------
    tasks : HeldOutTasks
    standing, local : float64 arrays, shape (n_models,)
        Of the task: standings on the whole benchmark, and what its neighbourhood says.
    distance : float
        u of the task.
    sigma : float
        Width of the kernel.

    Returns
    -------
    Estimate
        With fewer than two held-out datasets: the standings, without a spread.
    """
    n_tasks, n_models = tasks.accuracy.shape
    if n_tasks < 2:
        unknown = np.full((n_models, n_models), np.nan)
        return Estimate(standing, unknown, 0.0, 0, np.zeros(n_models))
    kernel = np.exp(-((tasks.distance - distance) ** 2) / (2.0 * sigma**2))
    weight = kernel + TRUST_TASKS / n_tasks  # so that a far task still learns from all, equally
    known = ~np.isnan(tasks.accuracy)
    found = np.where(known, tasks.accuracy - tasks.standing, 0.0)
    gap = tasks.local - tasks.standing
    deviation = _deviation(found, known, weight)
    share = _contenders(tasks.standing, deviation, known)
    found_level, gap_level = ((share * values).sum(axis=1) for values in (found, gap))
    found_apart = np.where(known, found - found_level[:, None], 0.0)
    gap_apart = np.where(known, gap - gap_level[:, None], 0.0)
    trust = _slope(gap_apart, found_apart, share * weight[:, None], weight.sum())
    level = _slope(gap_level, found_level, weight, weight.sum())
    error = found_apart - trust * gap_apart + (found_level - level * gap_level)[:, None]
    optimism = _optimism(error, tasks.accuracy, weight)
    covariance = _covariance(np.where(known, error, 0.0), known, weight)
    covariance = _without_noise(covariance, tasks, weight)
    of_task = local - standing
    task_share = _contenders(standing[None, :], deviation, np.ones((1, n_models), np.bool_))[0]
    task_level = float(task_share @ of_task)
    return Estimate(
        standing + trust * (of_task - task_level) + level * task_level,
        covariance * (n_tasks / max(n_tasks - 2, 1)),  # two slopes were fitted
        trust,
        max(n_tasks - 1, 1),
        np.full(n_models, optimism),
    )


def _deviation(found: Array, known: NDArray[np.bool_], weight: Array) -> float:
    """Typical size of a task's own effect on a model, what is common to all models left out."""
    count = known.sum(axis=1)
    common = found.sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(known, found - common[:, None], 0.0) ** 2).sum(axis=1)
    return math.sqrt(float(weight @ squares) / max(float(weight @ count), 1e-12))


def _contenders(standing: Array, deviation: float, known: NDArray[np.bool_]) -> Array:
    """Weights of the models, each row adding up to 1: what matters is who may be best."""
    best = np.where(known, standing, -np.inf).max(axis=1, keepdims=True)
    behind = np.where(known, best - standing, 0.0) / max(REACH * deviation, 1e-6)
    raw = np.where(known, np.exp(-0.5 * behind**2), 0.0)
    return np.asarray(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-12))


def _slope(x: Array, y: Array, weight: Array, tasks: float) -> float:
    """Slope through the origin in [0, 1], drawn towards TRUST as if by TRUST_TASKS more tasks.

    A slope below 0 or above 1 is an accident of few datasets: where datasets share nothing, the
    mean of the others is below average just when the one held out is above.
    """
    spread = float((weight * x * x).sum())
    extra = TRUST_TASKS * spread / tasks
    if spread + extra <= 0.0:
        return TRUST
    slope = (float((weight * x * y).sum()) + TRUST * extra) / (spread + extra)
    return min(max(slope, 0.0), 1.0)


def _optimism(error: Array, accuracy: Array, weight: Array) -> float:
    """Estimate less accuracy of each held-out dataset's largest estimate, on the average.

    The average is drawn towards 0 as if by TRUST_TASKS more datasets on which it was 0.
    """
    some = ~np.isnan(accuracy).all(axis=1)
    n_tasks = int(some.sum())
    if n_tasks == 0:
        return 0.0
    estimated = np.where(np.isnan(accuracy), -np.inf, accuracy - error)[some]
    largest = estimated >= estimated.max(axis=1, keepdims=True) - 1e-9  # equal ones count alike
    too_large = -(error[some] * largest).sum(axis=1) / largest.sum(axis=1)
    mean = float(weight[some] @ too_large) / float(weight[some].sum())
    return mean * n_tasks / (n_tasks + TRUST_TASKS)


def _covariance(error: Array, known: NDArray[np.bool_], weight: Array) -> Array:
    """Covariance of the errors of the models, shrunk towards one variance and one covariance.

    The intensity is that of Ledoit and Wolf (2004): the sampling variance of the entries over
    their distance from the target.
    """
    n_models = error.shape[1]
    both = (known * weight[:, None]).T @ known.astype(np.float64)
    product = (error * weight[:, None]).T @ error
    sample = np.where(both > 0, product / np.where(both > 0, both, 1.0), np.nan)
    variances = np.diag(sample)
    variance = float(np.nanmean(variances)) if not np.isnan(variances).all() else 0.0
    apart = ~np.eye(n_models, dtype=np.bool_) & ~np.isnan(sample)
    shared = max(float(sample[apart].mean()), 0.0) if apart.any() else 0.0
    target = np.full((n_models, n_models), shared)
    np.fill_diagonal(target, variance)
    sample = np.where(np.isnan(sample), target, sample)
    away = float(((sample - target) ** 2).sum())
    norms = (error**2).sum(axis=1)  # of the outer products, without building them
    squares = norms**2 - 2.0 * np.einsum("zi,ij,zj->z", error, sample, error) + (sample**2).sum()
    noise = float((weight**2 * squares).sum()) / float(weight.sum()) ** 2
    intensity = min(1.0, noise / away) if away > 0.0 else 1.0
    return np.asarray(intensity * target + (1.0 - intensity) * sample)


def _without_noise(covariance: Array, tasks: HeldOutTasks, weight: Array) -> Array:
    """Take out the sampling error of accuracies measured on so many records."""
    per_record = float((weight / np.maximum(tasks.n_records, 1)).sum() / weight.sum())
    least = LEAST_VARIANCE * float(np.diag(covariance).mean()) + 1e-9
    values, vectors = np.linalg.eigh(covariance - tasks.within * per_record)
    return np.asarray((vectors * np.maximum(values, least)) @ vectors.T)


def with_labels(before: Estimate, labels: NDArray[np.floating], within: Array) -> Estimate:
    """Add labels of the task as direct observations of the models' accuracies.

    The Gaussian update mean + Σ(Σ + N)⁻¹(observed − mean), N the sampling covariance of means over
    so many labelled prompts: models run on the same prompts are right and wrong together.

    Parameters
    ----------
    before : Estimate
        Without the labels.
    labels : float array, shape (n_labels, n_models)
        Correctness 0 or 1, NaN = not run.
    within : float64 array, shape (n_models, n_models)
        As in :class:`HeldOutTasks`.

    Returns
    -------
    Estimate
        Where no spread was measured, standings count as ten labels.
    """
    known = ~np.isnan(labels)
    seen = np.flatnonzero(known.any(axis=0))
    if len(seen) == 0:
        return before
    count = known[:, seen].sum(axis=0).astype(np.float64)
    observed = np.where(known, labels, 0.0)[:, seen].sum(axis=0) / count
    common = known[:, seen].T.astype(np.float64) @ known[:, seen]
    # The noise must not depend on the labels: a lucky mean would be believed more than an unlucky.
    chance = np.clip(before.mean, NEVER_CERTAIN, 1.0 - NEVER_CERTAIN)
    spread = np.sqrt(chance * (1.0 - chance))
    one_prompt = _correlation(within) * np.outer(spread, spread)
    covariance, degrees = before.covariance, before.degrees
    if degrees == 0:
        covariance, degrees = one_prompt / PRIOR_LABELS, 1
    noise = one_prompt[np.ix_(seen, seen)] * common / np.outer(count, count)
    total = covariance[np.ix_(seen, seen)] + noise + 1e-9 * np.eye(len(seen))
    gain = np.linalg.solve(total, covariance[seen]).T
    mean = before.mean + gain @ (observed - before.mean[seen])
    after = covariance - gain @ covariance[seen]
    left = np.diag(after) / np.maximum(np.diag(covariance), 1e-12)  # of what was uncertain
    return Estimate(
        np.round(mean, 12),  # equal models stay equal, and the cheaper one is chosen
        after,
        before.trust,
        degrees,
        before.optimism * left,
    )


def _correlation(within: Array) -> Array:
    """Correlation of two models' correctness on one prompt: a unit diagonal, no eigenvalue below 0.

    A model that was always right, or never, has luck of its own. Pairs of models that ran on
    different records have covariances that need not fit together.
    """
    scale = np.sqrt(np.maximum(np.diag(within), 1e-9))
    correlation = within / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < -1e-9:
        correlation = (vectors * np.maximum(values, 0.0)) @ vectors.T
        scale = np.sqrt(np.diag(correlation))
        correlation = correlation / np.outer(scale, scale)
    return np.asarray(correlation)


def interval(
    found: Estimate, model: int, n_prompts: int, coverage: float = COVERAGE
) -> tuple[float, float]:
    """Interval of a chosen model's measured accuracy on so many prompts of the task.

    Its centre is what is expected of the largest of many estimates (the winner's curse); with few
    datasets it is wider than its coverage needs.

    Parameters
    ----------
    found : Estimate
    model : int
    n_prompts : int
        Prompts on which the accuracy will be measured; their sampling error is included.
    coverage : float
        In (0, 1).

    Returns
    -------
    tuple of float
        Low and high, in [0, 1]; NaN where no spread could be measured.
    """
    if found.degrees == 0:
        return math.nan, math.nan
    mean = found.expected(model)
    chance = min(max(mean, NEVER_CERTAIN), 1.0 - NEVER_CERTAIN)
    variance = max(float(found.covariance[model, model]), 0.0)
    reach = _student((1.0 + coverage) / 2.0, found.degrees) * math.sqrt(
        variance + chance * (1.0 - chance) / max(n_prompts, 1)
    )
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def probability_better(found: Estimate, one: int, other: int) -> float:
    """Chance that one model's accuracy is above another's.

    Parameters
    ----------
    found : Estimate
    one, other : int

    Returns
    -------
    float
        NaN where no spread could be measured, or for one and the same model.
    """
    if found.degrees == 0 or one == other:
        return math.nan
    c = found.covariance
    variance = max(float(c[one, one] + c[other, other] - 2.0 * c[one, other]), 1e-12)
    ahead = float(found.mean[one] - found.mean[other]) / math.sqrt(variance)
    return 0.5 * math.erfc(-ahead / math.sqrt(2.0))


def _student(p: float, degrees: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees, else a series, to 1e-3 up to p = 0.9."""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2.0 * p - 1.0) / math.sqrt(2.0 * p * (1.0 - p))
    from statistics import NormalDist

    z = NormalDist().inv_cdf(p)  # Abramowitz and Stegun, 26.7.5
    return (
        z
        + (z**3 + z) / (4.0 * degrees)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * degrees**2)
        + (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * degrees**3)
    )
