"""The score `auto` under leave-one-dataset-out, learnt without the held-out dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
from benchrouter.evaluation.tasks.chosen_models import best_models
from benchrouter.evaluation.values import mean_known
from benchrouter.files.arrays import Array, Counts
from benchrouter.scores import formulas
from benchrouter.scores.cells import moves_of
from benchrouter.scores.evidence import Evidence
from benchrouter.scores.expected import task_accuracies
from benchrouter.scores.held_out import HeldOut
from benchrouter.scores.neighbourhood import local_of_held_out, pooled, within_covariance


@dataclass(frozen=True)
class HeldOutEstimate:
    """The estimate of `auto` for one dataset, learnt from the others.

    Attributes
    ----------
    code : int
        The dataset.
    before : Estimate
        Without labels.
    tasks : HeldOutTasks
        Statistics of holding out each of the other datasets.
    standing : float64 array, shape (n_models,)
        On the other datasets.
    """

    code: int
    before: task_accuracies.Estimate
    tasks: task_accuracies.HeldOutTasks
    standing: Array
    _calibrations: dict[bytes, task_accuracies.Calibration | None] = field(
        default_factory=dict, repr=False
    )

    def after(self, labels: NDArray[np.floating]) -> task_accuracies.Estimate:
        """Add labels of the dataset.

        Parameters
        ----------
        labels : float array, shape (n_labels, n_models)
            Correctness, NaN = not run.
        """
        common = task_accuracies.in_common(labels)
        if not common.any():
            return self.before
        # The same for all draws of so many labels of all models.
        key = common.tobytes()
        if key not in self._calibrations:
            self._calibrations[key] = task_accuracies.calibration(self.tasks, common)
        after = task_accuracies.with_labels(self.before, labels, self.tasks.within)
        return replace(after, calibration=self._calibrations[key])


def held_out_estimates(
    held_out: Sequence[HeldOut], evidence: Evidence, *, sigma: float
) -> Iterator[HeldOutEstimate]:
    """Estimate the models' accuracies on every dataset from the others, strictly nested.

    Parameters
    ----------
    held_out : sequence of HeldOut
        Every dataset.
    evidence : Evidence
    sigma : float
        Width of the kernel over distances.

    Yields
    ------
    HeldOutEstimate
        In the order of `held_out`.
    """
    n_datasets, n_models = evidence.means.shape
    n_records = np.bincount(evidence.dataset, minlength=n_datasets)
    scatter = within_covariance(evidence.correctness, evidence.dataset, n_datasets)
    for task in held_out:
        others = [other for other in held_out if other.code != task.code]
        codes = [other.code for other in others]
        distance = np.empty(len(others))
        standing, local = (np.empty((len(others), n_models)) for _ in range(2))
        # A third dataset is needed: with two, nothing is left when both are held out.
        for i, other in enumerate(others if n_datasets > 2 else []):
            distance[i], standing[i], local[i] = local_of_held_out(other, evidence, task.code)
        learnt = slice(None) if n_datasets > 2 else slice(0)
        tasks = task_accuracies.HeldOutTasks(
            accuracy=evidence.means[codes][learnt],
            standing=standing[learnt],
            local=local[learnt],
            distance=distance[learnt],
            n_records=n_records[codes][learnt],
            within=pooled(scatter[codes]),
            sigma=sigma,
        )
        u, of_others, neighbourhood = local_of_held_out(task, evidence)
        before = task_accuracies.estimate(tasks, of_others, neighbourhood, u)
        yield HeldOutEstimate(
            task.code, task_accuracies.calibrated(before, tasks), tasks, of_others
        )


def with_our_rules(
    results: LeaveOneOut,
    held_out: Sequence[HeldOut],
    evidence: Evidence,
    preferred: NDArray[np.int32],
) -> LeaveOneOut:
    """Add the rules "auto" and "labels" to strict results.

    "labels" is the best model of the labelled records; without any, the best on average.

    Parameters
    ----------
    results : LeaveOneOut
        With the nesting "strict".
    held_out : sequence of HeldOut
        Every dataset, in order.
    evidence : Evidence
    preferred : int32 array, shape (n_models,)
        Decides ties; "labels" decides them by the standings first.

    Returns
    -------
    LeaveOneOut
        With picks and scores of both rules, and what "auto" expects. A model without a score on
        the other datasets, and without a label, has no score and is not chosen.
    """
    filled = _Filled(results, evidence, preferred)
    estimates = held_out_estimates(held_out, evidence, sigma=results.sigma)
    for task, estimate in zip(held_out, estimates, strict=True):
        filled.add(task, estimate)
    strict: dict[str, Counts] = {}
    for rule, chosen in results.picks["strict"].items():
        strict[rule] = chosen
        if rule == "S3 with fallback":
            strict |= filled.picks
    scores = results.rule_scores.get("strict", {}) | {"auto": filled.means, "labels": filled.shares}
    return replace(
        results,
        picks={**results.picks, "strict": strict},
        rule_scores={**results.rule_scores, "strict": scores},
        intervals=filled.intervals,
        expected=filled.expected,
    )


class _Filled:
    """Scores and choices of "auto" and "labels" in every cell, filled dataset by dataset."""

    def __init__(
        self, results: LeaveOneOut, evidence: Evidence, preferred: NDArray[np.int32]
    ) -> None:
        self._results, self._evidence, self._preferred = results, evidence, preferred
        *cells, _ = shape = results.accuracy.shape
        self.means, self.shares = np.empty(shape), np.full(shape, np.nan)
        self.picks = {rule: np.empty(cells, np.int64) for rule in ("auto", "labels")}
        self.intervals, self.expected = np.empty((*cells, 2)), np.empty(cells)

    def add(self, task: HeldOut, estimate: HeldOutEstimate) -> None:
        """Fill the cells of one dataset."""
        results = self._results
        moves = moves_of(
            len(task.rows), task.code, results.label_shares, results.draws, results.seed
        )
        arrays = (self.means, self.shares, self.intervals, self.expected, *self.picks.values())
        for share, places in enumerate(moves):
            if places.shape[1]:
                for draw, chosen in enumerate(places):
                    self._fill((task.code, share, draw), estimate, task.rows[chosen])
                continue
            self._fill((task.code, share, 0), estimate, task.rows[places[0]])
            for array in arrays:  # without labels all draws are the same
                array[task.code, share] = array[task.code, share, 0]

    def _fill(self, cell: tuple[int, int, int], estimate: HeldOutEstimate, rows: Counts) -> None:
        labels = self._evidence.correctness[rows]
        shares = mean_known(labels.astype(np.float64), axis=0)
        after = estimate.after(labels)
        unknown = np.isnan(np.delete(self._evidence.means, estimate.code, axis=0)).all(axis=0)
        means = np.where(unknown & np.isnan(shares), np.nan, after.mean)
        best = int(best_models(means, self._preferred, np.array(np.argmin(self._preferred))))
        self.shares[cell], self.means[cell] = shares, means
        self.picks["auto"][cell] = best
        self.picks["labels"][cell] = (
            self._results.picks["strict"]["BMA"][cell]  # with models that ran everywhere only
            if np.isnan(shares).all()
            else labels_alone(shares, estimate.standing, self._preferred)
        )
        left = int(self._results.n_records[estimate.code]) - len(rows)
        self.expected[cell] = after.expected(best)
        self.intervals[cell] = task_accuracies.interval(after, best, left) or (np.nan, np.nan)


def labels_alone(shares: Array, standing: Array, preferred: NDArray[np.int32]) -> int:
    """Model of the largest share of right labels; ties by standing; without labels, by standing.

    Parameters
    ----------
    shares : float64 array, shape (n_models,)
        NaN = no label.
    standing : float64 array, shape (n_models,)
    preferred : int32 array, shape (n_models,)
    """
    if np.isnan(shares).all():
        return formulas.best_model(standing, preferred)
    return formulas.best_model(shares, preferred, standing)
