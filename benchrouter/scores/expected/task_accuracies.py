"""The score `auto`: each model's accuracy on a new task, how sure that is, and what labels add.

One hierarchical model in closed form. The accuracies of a task are the models' standings on the
benchmark, moved part of the way towards what the task's neighbourhood says, plus two Gaussian
errors: one that all models share, the task's difficulty, and one of each model's own. How far to
move, and how large the errors are, is measured on the benchmark's own datasets, each held out in
turn. Labels of the task are direct observations of the accuracies, with the sampling error of so
many prompts. How wide an interval must be, and by how much the largest of many estimates is too
large, is measured by choosing for every held-out dataset from what the others teach, with labels
like the task's. docs/quality.md says how well it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.scores import formulas
from benchrouter.scores.expected.contenders import contenders

TRUST = 0.75  # how far to move towards the neighbourhood before any dataset was held out
TRUST_TASKS = 5.0  # what that is worth, in held-out datasets
PRIOR_LABELS = 10.0  # what standings are worth, in labels, where no dataset could be held out
COVERAGE = 0.8  # of the interval that users are told
NEVER_CERTAIN = 0.05  # an accuracy counts as this far from 0 and 1 in the noise of labels
DRAWS = 20  # of labels for every held-out dataset, in the calibration
DECIMALS = 12  # of means: equal models stay equal, and the cheaper one is chosen


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
        As :func:`benchrouter.scores.neighbourhood.local_accuracy` gives it from the other datasets.
    distance : float64 array, shape (Z,)
        u of the dataset.
    n_records : int64 array, shape (Z,)
        Records behind each accuracy.
    within : float64 array, shape (M, M)
        Covariance of two models' correctness on one record of a dataset, as
        :func:`benchrouter.scores.neighbourhood.pooled` gives it.
    sigma : float
        Width of the kernel over distances.
    """

    accuracy: Array
    standing: Array
    local: Array
    distance: Array
    n_records: NDArray[np.int64]
    within: Array
    sigma: float = formulas.SIGMA

    @cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """Estimate of every held-out dataset from the others, without labels."""
        return self._trusting if self.leaving_pays else self._each(0.0)

    @cached_property
    def leaving_pays(self) -> bool:
        """Whether choices that left the best standing gained accuracy on held-out datasets.

        What they gained is added up, together with five more that each gained 3/4 of what such
        choices promised on the average.
        """
        promised, gained = [], []
        for of_task, accuracy, standing in zip(
            self._trusting, self.accuracy, self.standing, strict=True
        ):
            ran = ~np.isnan(accuracy)
            if of_task.degrees == 0 or not ran.any():
                continue
            best, kept = (
                int(np.where(ran, of, -np.inf).argmax()) for of in (of_task.mean, standing)
            )
            if of_task.mean[best] > of_task.mean[kept]:
                promised.append(float(of_task.mean[best] - of_task.mean[kept]))
                gained.append(float(accuracy[best] - accuracy[kept]))
        if not gained:
            return True
        return sum(gained) + TRUST_TASKS * TRUST * sum(promised) / len(promised) > 0.0

    @cached_property
    def _trusting(self) -> tuple[Estimate, ...]:
        return self._each(1.0)

    def _each(self, most_trust: float) -> tuple[Estimate, ...]:
        found = []
        for z in range(len(self.accuracy)):
            others = replace(
                self,
                accuracy=np.delete(self.accuracy, z, axis=0),
                standing=np.delete(self.standing, z, axis=0),
                local=np.delete(self.local, z, axis=0),
                distance=np.delete(self.distance, z),
                n_records=np.delete(self.n_records, z),
            )
            u = float(self.distance[z])
            found.append(_estimate(others, self.standing[z], self.local[z], u, most_trust))
        return tuple(found)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Of estimates without labels, as :func:`calibration` gives it."""
        return calibration(self, np.zeros_like(self.within))


@dataclass(frozen=True)
class Calibration:
    """How what was told of chosen models erred on held-out datasets.

    Attributes
    ----------
    optimism : float
        By how many of its standard deviations the estimate of a chosen model is too large (the
        winner's curse), at least 0.
    errors : float64 array, shape (n_datasets, n_draws)
        Accuracy less what was expected of the chosen model, in its standard deviations, unsigned.
    """

    optimism: float
    errors: Array

    def reach(self, coverage: float) -> float:
        """Standard deviations within which an error lies with so much chance.

        The quantile of `errors`, drawn to that of a Gaussian as by five more datasets.

        Parameters
        ----------
        coverage : float
            In (0, 1).
        """
        n_datasets = len(self.errors)
        low, high = 0.0, max(float(self.errors.max()), NormalDist().inv_cdf(0.5 + coverage / 2.0))
        for _ in range(50):
            middle = (low + high) / 2.0
            gaussian = math.erf(middle / math.sqrt(2.0))
            inside = n_datasets * float((self.errors <= middle).mean()) + TRUST_TASKS * gaussian
            if inside < coverage * (n_datasets + TRUST_TASKS):
                low = middle
            else:
                high = middle
        return high


@dataclass(frozen=True)
class Estimate:
    """Accuracy of every model on the task, as a Gaussian.

    Attributes
    ----------
    mean : float64 array, shape (n_models,)
        In [0, 1].
    covariance : float64 array, shape (n_models, n_models)
        NaN where no spread could be measured.
    trust : float
        Share of the way from the standings to the neighbourhood, for differences between models.
    degrees : int
        Degrees of freedom: held-out datasets less one, at least 1; 0 = no spread was measured.
    calibration : Calibration or None
        None with fewer than three held-out datasets.
    """

    mean: Array
    covariance: Array
    trust: float
    degrees: int
    calibration: Calibration | None = None

    def expected(self, model: int) -> float:
        """Accuracy to be expected of a model that was chosen for its large mean, in [0, 1]."""
        if self.calibration is None:
            return float(self.mean[model])
        deviation = math.sqrt(max(float(self.covariance[model, model]), 0.0))
        return max(float(self.mean[model]) - self.calibration.optimism * deviation, 0.0)


def estimate(tasks: HeldOutTasks, standing: Array, local: Array, distance: float) -> Estimate:
    """Estimate the accuracy of every model on a task without labels.

    With w the weight of a model (near 1 for those that may be best, small for those far below),
    mean = standing + trust·(gap − w·gap) + level·(w·gap), gap = local − standing: `trust` moves the
    differences between models, `level` the difficulty of the task. Both are least-squares slopes
    over the held-out datasets, within [0, 1] and drawn towards 3/4 as by five datasets. A held-out
    dataset counts more the nearer its distance is to the task's (the kernel of arXiv 2309.15789,
    eq. 14). Where choices that left the best standing lost accuracy on the held-out datasets,
    `trust` is 0.

    Parameters
    ----------
    tasks : HeldOutTasks
    standing, local : float64 arrays, shape (n_models,)
        Of the task: standings on the whole benchmark, and what its neighbourhood says.
    distance : float
        u of the task.

    Returns
    -------
    Estimate
        Not calibrated. With fewer than two held-out datasets: the standings, without a spread.
    """
    return _estimate(tasks, standing, local, distance, 1.0 if tasks.leaving_pays else 0.0)


def _estimate(
    tasks: HeldOutTasks, standing: Array, local: Array, distance: float, most_trust: float
) -> Estimate:
    n_tasks, n_models = tasks.accuracy.shape
    if n_tasks < 2:
        return Estimate(_in_range(standing), np.full((n_models, n_models), np.nan), 0.0, 0)
    kernel = np.exp(-((tasks.distance - distance) ** 2) / (2.0 * tasks.sigma**2))
    weight = kernel + TRUST_TASKS / n_tasks  # so that a far task still learns from all, equally
    known = ~np.isnan(tasks.accuracy)
    found = np.where(known, tasks.accuracy - tasks.standing, 0.0)
    gap = tasks.local - tasks.standing
    deviation = _deviation(found, known, weight)
    best = np.where(known, tasks.standing, -np.inf).max(axis=1, keepdims=True)
    share = contenders(tasks.standing, best, deviation, known)
    found_level, gap_level = ((share * values).sum(axis=1) for values in (found, gap))
    found_apart = np.where(known, found - found_level[:, None], 0.0)
    gap_apart = np.where(known, gap - gap_level[:, None], 0.0)
    trust = _slope(gap_apart, found_apart, share * weight[:, None], weight.sum())
    trust = min(trust, most_trust)
    level = _slope(gap_level, found_level, weight, weight.sum())
    shared, own = _variances(
        found_apart - trust * gap_apart, found_level - level * gap_level, share, tasks, weight
    )
    of_task = local - standing
    everyone = np.ones((1, n_models), np.bool_)
    task_share = contenders(standing[None, :], standing.max(), deviation, everyone)[0]
    task_level = float(task_share @ of_task)
    mean = standing + trust * (of_task - task_level) + level * task_level
    return Estimate(
        _in_range(mean),
        (shared + own * np.eye(n_models)) * (n_tasks / max(n_tasks - 2, 1)),  # two slopes fitted
        trust,
        max(n_tasks - 1, 1),
    )


def _in_range(mean: Array) -> Array:
    return np.clip(np.round(mean, DECIMALS), 0.0, 1.0)


def _deviation(found: Array, known: NDArray[np.bool_], weight: Array) -> float:
    """Typical size of a task's own effect on a model, what is common to all models left out."""
    count = known.sum(axis=1)
    common = found.sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(known, found - common[:, None], 0.0) ** 2).sum(axis=1)
    return math.sqrt(float(weight @ squares) / max(float(weight @ count), 1e-12))


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


def _variances(
    apart: Array, level: Array, share: Array, tasks: HeldOutTasks, weight: Array
) -> tuple[float, float]:
    """Variance of the error that models share on a task, and of each model's own, by moments.

    Models count as they contend. With shares s, Σ s·apart² has the mean own·(1 − Σ s²), and level²
    has shared + own·Σ s²; the sampling noise of accuracies measured on so many records is taken
    out of both. One variance for all models, and one covariance: entries of their own could not be
    learnt from so few datasets, and with these a model without labels learns of a task's difficulty
    from the others, never more.
    """
    records = np.maximum(tasks.n_records, 1)
    of_mean = np.einsum("zi,ij,zj->z", share, tasks.within, share)
    squares = (share**2).sum(axis=1)
    found = float(weight @ (share * apart**2).sum(axis=1))
    noise = float(weight @ ((share @ np.diag(tasks.within) - of_mean) / records))
    least = math.sqrt(2.0 / len(records)) * noise  # one standard error: 0 was never measured
    own = max(found - noise, least) / max(float(weight @ (1.0 - squares)), 1e-12)
    of_level = float(weight @ (level**2 - of_mean / records - own * squares))
    return max(of_level / float(weight.sum()), 0.0), own + 1e-9


def with_labels(before: Estimate, labels: NDArray[np.floating], within: Array) -> Estimate:
    """Add labels of the task as direct observations of the models' accuracies.

    The Gaussian update mean + Σ(Σ + N)⁻¹(observed − mean), N the sampling covariance of means over
    so many labelled prompts: models run on the same prompts are right and wrong together. Labels
    of other models move a model no farther than the 80 % interval that its own labels, or without
    any its prior, leave it; and a model without labels not above the best of those with labels,
    unless it was expected there without them.

    Parameters
    ----------
    before : Estimate
        Without the labels.
    labels : float array, shape (n_labels, n_models)
        Correctness in [0, 1], NaN = not run; one row for each distinct prompt.
    within : float64 array, shape (n_models, n_models)
        As in :class:`HeldOutTasks`.

    Returns
    -------
    Estimate
        Not calibrated. Where no spread was measured, standings count as ten labels.
    """
    common = in_common(labels)
    seen = np.flatnonzero(np.diag(common))
    if len(seen) == 0:
        return before
    observed = np.nansum(labels[:, seen], axis=0) / common[seen, seen]
    # The noise must not depend on the labels: a lucky mean would be believed more than an unlucky.
    noise = _one_prompt(before, within)[np.ix_(seen, seen)] * _of_means(common, seen)
    covariance = covariance_of(before, within)
    mean, after = _update(before.mean, covariance, seen, observed[None, :], noise)
    return Estimate(mean[0], after, before.trust, max(before.degrees, 1))


def covariance_of(found: Estimate, within: Array) -> Array:
    """Covariance of the models' accuracies; that of ten labels where no spread was measured.

    Parameters
    ----------
    found : Estimate
    within : float64 array, shape (n_models, n_models)
        As in :class:`HeldOutTasks`.

    Returns
    -------
    float64 array, shape (n_models, n_models)
    """
    return found.covariance if found.degrees else _one_prompt(found, within) / PRIOR_LABELS


def _one_prompt(found: Estimate, within: Array) -> Array:
    """Covariance of the models' correctness on one prompt of the task."""
    spread = _spread(found.mean)
    return _correlation(within) * np.outer(spread, spread)


def in_common(labels: NDArray[np.floating]) -> Array:
    """Count the labelled prompts that two models have in common.

    Parameters
    ----------
    labels : float array, shape (n_labels, n_models)
        NaN = not run.

    Returns
    -------
    float64 array, shape (n_models, n_models)
        On the diagonal the labels of each model.
    """
    known = (~np.isnan(labels)).astype(np.float64)
    return np.asarray(known.T @ known)


def _spread(accuracy: Array) -> Array:
    """Standard deviation of correctness on one prompt."""
    chance = np.clip(accuracy, NEVER_CERTAIN, 1.0 - NEVER_CERTAIN)
    return np.sqrt(chance * (1.0 - chance))


def _of_means(common: Array, seen: NDArray[np.int64]) -> Array:
    """By how much the covariance of means over labels is smaller than that on one prompt."""
    count = common[seen, seen]
    return np.asarray(common[np.ix_(seen, seen)] / np.outer(count, count))


def _update(
    mean: Array, covariance: Array, seen: NDArray[np.int64], observed: Array, noise: Array
) -> tuple[Array, Array]:
    """Update as :func:`with_labels` says, for several draws of the observed means of labels."""
    total = covariance[np.ix_(seen, seen)] + noise + 1e-9 * np.eye(len(seen))
    gain = np.linalg.solve(total, covariance[seen]).T
    surprise = observed - mean[seen]
    moved = mean + surprise @ gain.T
    variance = np.diag(covariance).copy()
    alone = np.tile(mean, (len(observed), 1))
    own_gain = variance[seen] / (variance[seen] + np.diag(noise))
    alone[:, seen] += own_gain * surprise
    variance[seen] *= 1.0 - own_gain
    reach = NormalDist().inv_cdf((1.0 + COVERAGE) / 2.0) * np.sqrt(variance)
    moved = np.clip(moved, alone - reach, alone + reach)
    top = moved[:, seen].max(axis=1, keepdims=True)
    unseen = np.delete(np.arange(len(mean)), seen)
    moved[:, unseen] = np.minimum(moved[:, unseen], np.maximum(mean[unseen], top))
    return _in_range(moved), covariance - gain @ covariance[seen]


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


def calibrated(found: Estimate, tasks: HeldOutTasks, common: Array | None = None) -> Estimate:
    """Add to an estimate how such estimates erred on the held-out datasets.

    Parameters
    ----------
    found : Estimate
    tasks : HeldOutTasks
        From which it was learnt.
    common : float64 array, shape (n_models, n_models), optional
        Of its labels, as :func:`in_common` gives it; None = it has none.
    """
    if common is None or not common.any():
        return replace(found, calibration=tasks.calibration)
    return replace(found, calibration=calibration(tasks, common))


def calibration(tasks: HeldOutTasks, common: Array) -> Calibration | None:
    """Choose for every held-out dataset from what the others teach, and compare.

    Labels are drawn: the dataset's accuracies plus Gaussian sampling error of so many labels. The
    accuracy that a choice is compared with was itself measured on so many records; the variance
    that is told of it says so.

    Parameters
    ----------
    tasks : HeldOutTasks
    common : float64 array, shape (n_models, n_models)
        Labelled prompts that two models have in common, 0 = no labels.

    Returns
    -------
    Calibration or None
        None with fewer than three held-out datasets.
    """
    if len(tasks.accuracy) < 3:
        return None
    correlation = _correlation(tasks.within)
    labelled = np.flatnonzero(np.diag(common))
    luck = _luck(correlation, common, labelled)
    found = []
    for of_task, accuracy, n in zip(tasks.estimates, tasks.accuracy, tasks.n_records, strict=True):
        ran = ~np.isnan(accuracy)
        if not ran.any():
            continue
        spread = _spread(of_task.mean)
        one_prompt = correlation * np.outer(spread, spread)
        mean = np.tile(of_task.mean, (len(luck), 1))
        covariance = of_task.covariance + one_prompt / max(n, 1)
        seen = labelled[ran[labelled]]
        if len(seen):
            observed = accuracy[seen] + luck[:, ran[labelled]] * _spread(accuracy[seen])
            noise = one_prompt[np.ix_(seen, seen)] * _of_means(common, seen)
            mean, covariance = _update(of_task.mean, covariance, seen, observed, noise)
        best = np.where(ran, mean, -np.inf).argmax(axis=1)
        error = accuracy[best] - mean[np.arange(len(best)), best]
        found.append(error / np.sqrt(np.diag(covariance)[best]))
    if not found:
        return None
    errors = np.array(found)
    optimism = max(-float(errors.mean(axis=1).sum()) / (len(errors) + TRUST_TASKS), 0.0)
    return Calibration(optimism, np.abs(errors + optimism))


def _luck(correlation: Array, common: Array, seen: NDArray[np.int64]) -> Array:
    """Seeded sampling errors of means of labels, where one label has the variance 1."""
    values, vectors = np.linalg.eigh(correlation[np.ix_(seen, seen)] * _of_means(common, seen))
    draws = np.random.default_rng(0).normal(size=(DRAWS if len(seen) else 1, len(seen)))
    return np.asarray(draws @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)


def interval(
    found: Estimate, model: int, n_prompts: float, coverage: float = COVERAGE
) -> tuple[float, float] | None:
    """Interval of a chosen model's measured accuracy on so many prompts of the task.

    Its centre is what is expected of the largest of many estimates (the winner's curse); its width
    held as many of the held-out datasets as it shall hold of tasks.

    Parameters
    ----------
    found : Estimate
    model : int
    n_prompts : float
        Prompts on which the accuracy will be measured; their sampling error is included. Where
        prompts repeat, their effective number, (Σc)²/Σc² for counts c.
    coverage : float
        In (0, 1).

    Returns
    -------
    tuple of float, or None
        Low and high, in [0, 1]; None where no spread could be measured.
    """
    if found.degrees == 0:
        return None
    mean = found.expected(model)
    chance = min(max(mean, NEVER_CERTAIN), 1.0 - NEVER_CERTAIN)
    variance = max(float(found.covariance[model, model]), 0.0)
    reach = (
        _student((1.0 + coverage) / 2.0, found.degrees)
        if found.calibration is None
        else found.calibration.reach(coverage)
    ) * math.sqrt(variance + chance * (1.0 - chance) / max(n_prompts, 1.0))
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def probability_better(found: Estimate, one: int, other: int) -> float:
    """Chance that one model's accuracy is above another's.

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
    z = NormalDist().inv_cdf(p)  # Abramowitz and Stegun, 26.7.5
    return (
        z
        + (z**3 + z) / (4.0 * degrees)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * degrees**2)
        + (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * degrees**3)
    )
