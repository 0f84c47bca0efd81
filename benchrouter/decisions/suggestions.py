"""Which labels of a task to grade next: fresh prompts, and models that may still be the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.task import check_choice, check_labels, estimate_of, once_each
from benchrouter.files.arrays import Array
from benchrouter.neighbours.index import Index, check_count
from benchrouter.scores import formulas
from benchrouter.scores.expected import task_accuracies
from benchrouter.scores.fitted import Fit
from benchrouter.scores.task_sums import distinct, evidence_of_task, sums_of_tasks

ENOUGH = 0.9  # chance that the models to grade hold the best, and that a choice is good enough
MAX_REGRET = 0.01  # accuracy that a choice may lie below the best
DRAWS = 4000  # of the accuracies; a chance is off by 0.005 (1 sd) at most


@dataclass(frozen=True)
class LabelSuggestion:
    """Prompts and models to grade next, and whether more labels are needed at all.

    Attributes
    ----------
    prompts : int64 array, shape (at most n,)
        Positions of prompts to grade, ascending; none of them has a label. Empty where no more
        labels are needed, or no prompt is left.
    models : tuple of str
        The models to run on them, in the router's order: together they hold the best one with 90 %
        chance.
    best : str
        The model of the largest expected accuracy so far.
    chance : float
        Chance that `best` lies at most `max_regret` below the best of all models allowed.
    max_regret : float
        In accuracy.
    reached : bool
        Whether `chance` is at least 90 %.
    chance_of_best : dict of str to float
        Every model's chance of being the best; 0 where not allowed.
    """

    prompts: NDArray[np.int64]
    models: tuple[str, ...]
    best: str
    chance: float
    max_regret: float
    reached: bool
    chance_of_best: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON.

        Returns
        -------
        dict
            With "rows", the positions of the prompts counted from 1, in place of `prompts`.
        """
        others = {name: value for name, value in vars(self).items() if name != "prompts"}
        return {"rows": (self.prompts + 1).tolist(), **others, "models": list(self.models)}


def suggest_labels(
    fit: Fit,
    index: Index,
    embeddings: NDArray[np.float32],
    labels: NDArray[np.floating] | None = None,
    *,
    n: int,
    max_regret: float = MAX_REGRET,
    label_threshold: float | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> LabelSuggestion:
    """Name the prompts and models to grade next.

    Parameters
    ----------
    fit : Fit
    index : Index
        Over the fit's embeddings.
    embeddings : float32 array, shape (n_prompts, dim)
        Unit rows.
    labels : float array, shape (n_labels, n_models), optional
        Labels so far, as for :func:`benchrouter.decisions.task.choose_for_task`.
    n : int
        Prompts to name, at least 1. They are a seeded random choice among those without labels.
    max_regret : float
        Accuracy that a choice may lie below the best, at least 0.
    label_threshold : float, optional
        A label above it is correct.
    allowed : bool array, shape (n_models,), optional
        Models that may be chosen, at least one; by default all.

    Raises
    ------
    TypeError, ValueError
        If there is no prompt, if the labels do not fit, if n is below 1, if max_regret is
        negative, or if the benchmark has datasets without a correctness threshold.
    """
    check_choice(fit, "auto")
    check_count(n, "n")
    if not max_regret >= 0.0:
        raise ValueError(f"max_regret must be at least 0, got {max_regret}")
    if len(embeddings) == 0:
        raise ValueError("a task needs at least one prompt, found none")
    known = check_labels(labels, len(embeddings), fit, label_threshold)
    labelled = np.flatnonzero(~np.isnan(known).all(axis=1))
    neighbours = index.search(embeddings, max(fit.settings.k, fit.settings.kappa))
    everything = np.array([0, len(embeddings)])
    sums = sums_of_tasks(fit, neighbours, everything, embeddings, threads=index.threads)
    numbers = distinct(embeddings)
    of_prompts = once_each(known[labelled], numbers[labelled])
    found = task_accuracies.with_labels(
        estimate_of(fit, evidence_of_task(fit, sums, 0)), of_prompts, fit.within
    )
    allowed = np.ones(len(fit.models), np.bool_) if allowed is None else allowed
    best = formulas.best_model(np.where(allowed, found.mean, np.nan), fit.preferred)
    of_best, chance = chances(found, best, fit.within, max_regret, allowed)
    reached = chance >= ENOUGH
    fresh = _fresh(numbers, labelled, 0 if reached else n)
    few = np.flatnonzero(allowed)
    models = () if reached else few[contenders(of_best[few])]
    return LabelSuggestion(
        prompts=fresh,
        models=tuple(fit.models[m] for m in models),
        best=fit.models[best],
        chance=chance,
        max_regret=max_regret,
        reached=reached,
        chance_of_best=dict(zip(fit.models, of_best.tolist(), strict=True)),
    )


def chances(
    found: task_accuracies.Estimate,
    best: int,
    within: Array,
    max_regret: float = MAX_REGRET,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[Array, float]:
    """Chance of every model to be the best, and of a chosen one to lie near enough below it.

    Parameters
    ----------
    found : Estimate
    best : int
        The chosen model.
    within : float64 array, shape (n_models, n_models)
        As in :class:`benchrouter.scores.expected.task_accuracies.HeldOutTasks`.
    max_regret : float
        How far below the best is near enough.
    allowed : bool array, shape (n_models,), optional
        Models among which one is the best; by default all.

    Returns
    -------
    of_best : float64 array, shape (n_models,)
        Adds up to 1. By seeded draws.
    chance : float
    """
    values, vectors = np.linalg.eigh(task_accuracies.covariance_of(found, within))
    rng = np.random.default_rng(0)
    accuracy = (
        rng.normal(size=(DRAWS, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    )
    accuracy += found.mean
    if allowed is not None:
        accuracy[:, ~allowed] = -np.inf
    of_best = np.bincount(accuracy.argmax(axis=1), minlength=len(values)) / DRAWS
    accuracy = np.clip(accuracy, 0.0, 1.0)
    regret = accuracy.max(axis=1) - accuracy[:, best]
    return of_best, float((regret <= max_regret).mean())


def contenders(of_best: Array) -> NDArray[np.int64]:
    """Choose the fewest models that hold the best one with 90 % chance, at least two.

    Parameters
    ----------
    of_best : float64 array, shape (n_models,)
        As :func:`chances` gives it.

    Returns
    -------
    int64 array
        Positions, ascending.
    """
    order = np.argsort(-of_best, kind="stable")
    held = np.cumsum(of_best[order])
    return np.sort(order[: max(int(np.searchsorted(held, ENOUGH)) + 1, 2)])


def _fresh(numbers: NDArray[np.int64], labelled: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """A seeded random choice among prompts that are not like a labelled one, each text once."""
    first = np.unique(numbers, return_index=True)[1]
    free = first[~np.isin(numbers[first], numbers[labelled])]
    order = np.random.default_rng(0).permutation(len(numbers))  # the same, whatever is labelled
    return np.sort(order[np.isin(order, free)][:n])
