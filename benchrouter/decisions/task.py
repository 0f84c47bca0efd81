"""Choose one model for a task: auto, S1, S2 or S3, with labels where there are some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import TaskDecision
from benchrouter.decisions.costs.task_costs import Stake, stake_of, weigh
from benchrouter.decisions.plan import AMONG, Plan, task_plan
from benchrouter.decisions.policy import NO_POLICY, Policy
from benchrouter.files.arrays import Array
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours, join
from benchrouter.scores import formulas
from benchrouter.scores.evidence import verdicts
from benchrouter.scores.expected import task_accuracies
from benchrouter.scores.fitted import Fit
from benchrouter.scores.task_sums import (
    DECIMALS,
    TaskEvidence,
    distinct,
    effective_number,
    evidence_of_task,
    sums_of_tasks,
)
from benchrouter.votes.outcomes import PackedOutcomes, pack
from benchrouter.votes.votes import task_scores, votes

Score = Literal["auto", "s1", "s2", "s3"]
SCORES = ("auto", "s1", "s2", "s3")


def choose_for_task(
    fit: Fit,
    index: Index,
    embeddings: NDArray[np.float32],
    labels: NDArray[np.floating] | None = None,
    *,
    score: Score = "auto",
    label_threshold: float | None = None,
    policy: Policy = NO_POLICY,
    prompts: Sequence[str] | None = None,
    tokens: NDArray[np.integer] | None = None,
) -> TaskDecision:
    """Choose one model for all prompts of a task.

    Parameters
    ----------
    fit : Fit
    index : Index
        Over the fit's embeddings.
    embeddings : float32 array, shape (n_prompts, dim)
        Unit rows.
    labels : float array, shape (n_labels, n_models), optional
        Scores of the first n_labels prompts, NaN = not run. "auto" takes them as observations of
        the models' accuracies, several of one prompt as a single one. For S1, S2, S3 prompts with a
        label join the neighbours, and the scores are then of the other prompts (where none is left,
        of all, each without its own label).
    score : "auto", "s1", "s2" or "s3"
        What to maximise. "auto" is the expected accuracy (`task_accuracies`); eq. 8's
        fallback belongs to "s3".
    label_threshold : float, optional
        A label above it is correct. By default labels must lie in [0, 1], and count as correct
        above 0.5.
    policy : Policy
        Models that may be chosen, and how cost counts; its rule and k are for prompts.
    prompts : sequence of str, optional
        Their tokens are estimated where costs are prices × tokens.
    tokens : int array, shape (n_prompts,), optional
        Instead of an estimate.

    Raises
    ------
    TypeError, ValueError
        If there is no prompt, if the labels or tokens do not fit, if the benchmark has datasets
        without a correctness threshold, or if the budget is below what the cheapest model costs.
    """
    plan = task_plan(fit, policy)
    check_choice(fit, score)
    if len(embeddings) == 0:
        raise ValueError("a task needs at least one prompt, found none")
    known = check_labels(labels, len(embeddings), fit, label_threshold)
    labelled = np.flatnonzero(~np.isnan(known).all(axis=1))
    depth = max(fit.settings.k, fit.settings.kappa)
    neighbours = index.search(embeddings, depth)
    everything = np.array([0, len(embeddings)])
    sums = sums_of_tasks(fit, neighbours, everything, embeddings, threads=index.threads)
    numbers = distinct(embeddings)
    rest = np.delete(numbers, labelled) if len(labelled) < len(numbers) else numbers
    seen = replace(evidence_of_task(fit, sums, 0), n_effective=effective_number(rest))
    costs = plan.costs_of_prompts(neighbours.ids, prompts, tokens, index.threads)
    cost_usd = None if costs is None else mean_cost(costs.sum(axis=0, dtype=np.float64), len(costs))
    if len(labelled) == 0:
        return decide(fit, seen, score, plan, cost_usd)
    known = known[labelled]
    of_prompts = once_each(known, numbers[labelled])
    found = task_accuracies.with_labels(estimate_of(fit, seen), of_prompts, fit.within)
    found = task_accuracies.calibrated(
        found, fit.held_out_tasks, task_accuracies.in_common(of_prompts)
    )
    joined = _with_labelled(embeddings, neighbours, labelled, index, depth)
    seen = _scores_among(fit, seen, joined, known, index.threads)
    voting = np.ascontiguousarray(neighbours.ids[labelled, : fit.settings.k])
    p = _measured_p(fit, _p_hat(fit, seen.distance), voting, known, index.threads)
    return _decide(fit, score, found, seen, p, known, plan, cost_usd)


def check_choice(fit: Fit, score: Score) -> None:
    """Refuse an unknown score, or a benchmark that cannot choose for a task.

    Parameters
    ----------
    fit : Fit
    score : "auto", "s1", "s2" or "s3"

    Raises
    ------
    ValueError
        Also if the benchmark has datasets without a correctness threshold.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(map(repr, SCORES))}, got {score!r}")
    if fit.correct is None:
        raise ValueError(
            "a task needs correctness, and datasets of this benchmark have no threshold: "
            "give thresholds when fitting (--correct-above), or route prompts one by one"
        )


def decide(
    fit: Fit, seen: TaskEvidence, score: Score, plan: Plan, cost_usd: Array | None
) -> TaskDecision:
    """Choose one model for a task without labels, from what its prompts add up to.

    Parameters
    ----------
    fit : Fit
    seen : TaskEvidence
    score : "auto", "s1", "s2" or "s3"
    plan : Plan
    cost_usd : float64 array, shape (n_models,), or None
        Expected cost of a prompt, where the policy asks for it.
    """
    found, p = _without_labels(fit, seen)
    return _decide(fit, score, found, seen, p, _no_labels(fit), plan, cost_usd)


def stake(fit: Fit, seen: TaskEvidence, score: Score, plan: Plan, cost_usd: Array) -> Stake:
    """What a cost policy weighs for a task without labels.

    Parameters
    ----------
    fit, seen, score, plan, cost_usd
        As in :func:`decide`.
    """
    found, p = _without_labels(fit, seen)
    lead = _lead(fit, score, found, seen, p, _no_labels(fit), plan.allowed)
    return _stake(fit, plan, found, lead, cost_usd)


def mean_cost(total_usd: Array, n_prompts: int) -> Array:
    """Expected cost of a prompt of a task.

    Parameters
    ----------
    total_usd : float64 array, shape (n_models,)
        Of all its prompts.
    n_prompts : int

    Returns
    -------
    float64 array, shape (n_models,)
        Rounded to float32, so that it is the same in any order of the prompts.
    """
    return (total_usd / n_prompts).astype(np.float32).astype(np.float64)


def _without_labels(fit: Fit, seen: TaskEvidence) -> tuple[task_accuracies.Estimate, Array]:
    """Calibrated estimate, and p̂."""
    found = task_accuracies.calibrated(estimate_of(fit, seen), fit.held_out_tasks)
    return found, _p_hat(fit, seen.distance)


def _no_labels(fit: Fit) -> NDArray[np.float32]:
    return np.empty((0, len(fit.models)), np.float32)


def estimate_of(fit: Fit, seen: TaskEvidence) -> task_accuracies.Estimate:
    """Estimate the accuracy of every model on the task, from the benchmark alone.

    Returns
    -------
    Estimate
        Not calibrated.
    """
    standing = fit.prior.astype(np.float64)
    return task_accuracies.estimate(fit.held_out_tasks, standing, seen.local, seen.distance)


def once_each(labels: NDArray[np.float32], prompts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Take the mean of the labels of one and the same prompt: they are one observation.

    Parameters
    ----------
    labels : float32 array, shape (n_labels, n_models)
        NaN = not run.
    prompts : int64 array, shape (n_labels,)
        As :func:`benchrouter.scores.task_sums.distinct` numbers them.

    Returns
    -------
    float32 array, shape (n_distinct, n_models)
    """
    _, row = np.unique(prompts, return_inverse=True)
    known = ~np.isnan(labels)
    count, total = (np.zeros((int(row.max(initial=-1)) + 1, labels.shape[1])) for _ in range(2))
    np.add.at(count, row, known)
    np.add.at(total, row, np.where(known, labels, 0.0))
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan).astype(np.float32)


def _p_hat(fit: Fit, distance: float) -> Array:
    """Chance that the predictor is right at a distance, by every model; NaN = not known."""
    if len(fit.pairs.u) == 0:
        return np.full(len(fit.models), np.nan)
    u = np.array([distance])
    return formulas.smooth(u, fit.pairs.u, fit.pairs.p, fit.settings.sigma)[0]


def _scores_among(
    fit: Fit, seen: TaskEvidence, joined: Neighbours, known: NDArray[np.float32], threads: int
) -> TaskEvidence:
    """Let labelled prompts, numbered after the benchmark's records, join in S1, S2 and u."""
    assert fit.correct is not None
    task = task_scores(
        np.ascontiguousarray(joined.ids),
        _append(fit.correct, pack(known)),
        np.array([0, len(joined.ids)]),
        prior=fit.prior,
        k=fit.settings.k,
        threshold=fit.settings.threshold,
        threads=threads,
    )
    distance = formulas.task_distance(joined.similarities[:, : fit.settings.kappa])
    return replace(
        seen,
        s1=np.round(task.s1[0], DECIMALS),
        s2=task.s2[0],
        support=task.support[0],
        distance=round(distance, DECIMALS),
    )


def _measured_p(
    fit: Fit, p: Array, voting: NDArray[np.int64], known: NDArray[np.float32], threads: int
) -> Array:
    """Take p from labels where they measure it, p̂ elsewhere."""
    assert fit.correct is not None
    g = votes(voting, fit.correct, prior=fit.prior, threads=threads).votes
    p_hat = np.where(np.isnan(p), 0.5, p)
    measured = formulas.label_informed_p(p_hat, verdicts(g, fit.settings.threshold), known, fit.tau)
    return np.where(np.isnan(known).all(axis=0), p, measured)


def check_labels(
    labels: NDArray[np.floating] | None, n_prompts: int, fit: Fit, threshold: float | None
) -> NDArray[np.float32]:
    """Read labels as correctness.

    Parameters
    ----------
    labels : float array, shape (n_labels, n_models), or None
        NaN = not run.
    n_prompts : int
        Of the task.
    fit : Fit
    threshold : float or None
        A label above it is correct; None = labels lie in [0, 1], and are correct above 0.5.

    Returns
    -------
    float32 array, shape (n_labels, n_models)
        0, 1 or NaN.

    Raises
    ------
    TypeError, ValueError
        If the labels do not fit, are infinite, or lie outside [0, 1] without a threshold.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"label_threshold must be a finite number, got {threshold}")
    n_models = len(fit.models)
    if labels is None:
        return _no_labels(fit)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind != "f":
        found = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"labels must be a float array, got {found}")
    if labels.ndim != 2 or labels.shape[1] != n_models or len(labels) > n_prompts:
        raise ValueError(
            f"labels must have shape (at most {n_prompts} prompts, {n_models} models), "
            f"got {labels.shape}"
        )
    if np.isinf(labels).any():
        raise ValueError("labels must be finite or NaN, found an infinity")
    outside = labels[(labels < 0.0) | (labels > 1.0)]
    if threshold is None and len(outside):
        raise ValueError(
            f"labels must lie in [0, 1], found {outside[0]:g}; for scores of another scale give "
            "label_threshold, above which one is correct"
        )
    correct = np.where(np.isnan(labels), np.nan, labels > (0.5 if threshold is None else threshold))
    return np.asarray(correct, dtype=np.float32)


def _with_labelled(
    embeddings: NDArray[np.float32],
    of_benchmark: Neighbours,
    labelled: NDArray[np.int64],
    index: Index,
    depth: int,
) -> Neighbours:
    """Neighbours of the prompts without labels (of all, if none is left), labelled ones among them.

    Labelled prompts are numbered after the benchmark's records; none is its own neighbour.
    """
    scored = np.setdiff1d(np.arange(len(embeddings)), labelled)
    if len(scored) == 0:
        scored = labelled
    pool = Index(np.ascontiguousarray(embeddings[labelled]), threads=index.threads, verify=False)
    nearby = pool.search(np.ascontiguousarray(embeddings[scored]), min(len(labelled), depth + 1))
    dropped = (nearby.ids < 0) | (labelled[nearby.ids] == scored[:, None])
    return join(
        Neighbours(of_benchmark.ids[scored], of_benchmark.similarities[scored]),
        Neighbours(
            np.where(dropped, -1, nearby.ids + index.n_records),
            np.where(dropped, np.float32(-np.inf), nearby.similarities),
        ),
        depth,
    )


def _append(first: PackedOutcomes, second: PackedOutcomes) -> PackedOutcomes:
    present = None
    if first.present is not None or second.present is not None:
        present = np.concatenate([_present(first), _present(second)])
    bits = np.concatenate([first.bits, second.bits])
    return PackedOutcomes(bits, present, first.n_models)


def _present(outcomes: PackedOutcomes) -> NDArray[np.uint64]:
    if outcomes.present is not None:
        return outcomes.present
    everything = pack(np.ones((1, outcomes.n_models), dtype=np.float32)).bits
    return np.repeat(everything, len(outcomes.bits), axis=0)


class _Lead(NamedTuple):
    """Who leads on a task where cost does not count, among the models allowed."""

    values: Array
    """What is maximised; NaN where not allowed."""
    best: int
    """The model of the largest value."""
    bma: int
    """The best on average."""
    chosen: int
    """One of the two."""
    probability: float

    @property
    def is_held(self) -> bool:
        """Whether the best on average is kept for want of evidence for another."""
        return self.chosen != self.best or bool(np.isnan(self.values).all())


def _lead(
    fit: Fit,
    score: Score,
    found: task_accuracies.Estimate,
    seen: TaskEvidence,
    p: Array,
    labels: NDArray[np.float32],
    allowed: NDArray[np.bool_],
) -> _Lead:
    s1, s2, n_prompts = seen.s1, seen.s2, seen.n_prompts
    n_scored = n_prompts - len(labels) or n_prompts
    values = {"auto": found.mean, "s1": s1, "s2": s2, "s3": formulas.s3(s2, p)}[score]
    values = np.where(allowed, values, np.nan)
    few = np.flatnonzero(allowed)
    bma = int(few[formulas.best_on_average(fit.means[:, few], fit.preferred[few])])
    # Of equal expected accuracies one with labels wins; else none departs from the best on average.
    labelled = np.asarray((~np.isnan(labels)).any(axis=0), dtype=np.float64)
    first_tie = labelled if score == "auto" else s1
    best = bma if np.isnan(values).all() else formulas.best_model(values, fit.preferred, first_tie)
    probability = float("nan")
    if score == "auto":
        probability = task_accuracies.probability_better(found, best, bma)
    elif best != bma and not np.isnan(p[[best, bma]]).any():
        probability = formulas.probability_better((s2[best], s2[bma]), (p[best], p[bma]), n_scored)
    chosen = best
    if score == "s3" and best != bma and not probability > fit.settings.eta:
        chosen = bma
    return _Lead(values, best, bma, chosen, probability)


def _stake(
    fit: Fit, plan: Plan, found: task_accuracies.Estimate, lead: _Lead, cost_usd: Array
) -> Stake:
    unknown = np.isnan(lead.values).all()
    values = fit.prior.astype(np.float64) if unknown else lead.values
    accuracy = np.array([found.expected(m) for m in range(len(values))])
    return stake_of(plan, values, accuracy, cost_usd, lead.chosen, lead.is_held)


def _decide(
    fit: Fit,
    score: Score,
    found: task_accuracies.Estimate,
    seen: TaskEvidence,
    p: Array,
    labels: NDArray[np.float32],
    plan: Plan,
    cost_usd: Array | None,
) -> TaskDecision:
    s1, s2, u, n_prompts = seen.s1, seen.s2, seen.distance, seen.n_prompts
    s3 = formulas.s3(s2, p)
    lead = _lead(fit, score, found, seen, p, labels, plan.allowed)
    best, bma, chosen, probability = lead.best, lead.bma, lead.chosen, lead.probability
    reason = _reason(fit, score, lead)
    over_limit = None
    if cost_usd is not None:
        weighed = _stake(fit, plan, found, lead, cost_usd)
        chosen, by_cost = weigh(fit, plan, weighed, n_prompts, _name(score))
        over_limit = weighed.over_limit
        if by_cost is not None:
            reason = f"{reason}; {by_cost}" if lead.is_held else by_cost
    if not plan.allowed.all():
        reason += AMONG
    return TaskDecision(
        model=fit.models[chosen],
        reason=reason + _caveat(score, found),
        fallback=chosen == lead.chosen != best,
        score=score,
        expected_accuracy=found.expected(chosen),
        interval=task_accuracies.interval(found, chosen, seen.n_effective),
        best_by_score=fit.models[best],
        best_on_average=fit.models[bma],
        probability=probability,
        distance=u,
        benchmark_distances=fit.benchmark_u,
        warning=_warning(u, fit.benchmark_u),
        n_prompts=n_prompts,
        n_labels=len(labels),
        n_effective=seen.n_effective,
        models=fit.models,
        auto=found.mean,
        auto_sd=np.sqrt(np.maximum(np.diag(found.covariance), 0.0)),
        s1=s1,
        s2=s2,
        s3=s3,
        p_hat=p,
        support=seen.support,
        standing=fit.prior.astype(np.float64),
        params_b=fit.params_b,
        cost_usd=fit.cost_usd,
        prices=fit.prices,
        allowed=plan.allowed,
        task_cost_usd=cost_usd,
        over_limit=over_limit,
    )


def _name(score: str) -> str:
    return "expected accuracy" if score == "auto" else score.upper()


def _reason(fit: Fit, score: str, lead: _Lead) -> str:
    what, (values, best, bma, chosen, probability) = _name(score), lead
    model, average = fit.models[best], fit.models[bma]
    if np.isnan(values).all():
        return (
            f"{what} needs at least two datasets to learn p̂ from; {average} is kept, the best on "
            "the benchmark"
        )
    if best == bma:
        return f"{what} is largest for {model} ({values[best]:.3f}), also the best on average"
    found = (
        f"{what} is largest for {model} ({values[best]:.3f}; {average}, the best on average, has "
        f"{values[bma]:.3f})"
    )
    if score in ("s1", "s2") or np.isnan(probability):
        return found
    if score == "auto":
        return f"{found}; it is the better of the two with probability {probability:.2f}"
    eta = fit.settings.eta
    if chosen == best:
        return f"{found}, and beats it with probability {probability:.2f} > {eta:g}"
    return (
        f"{found}, but beats it only with probability {probability:.2f}, not above {eta:g}: "
        f"{average} is kept"
    )


def _caveat(score: str, found: task_accuracies.Estimate) -> str:
    if score != "auto" or np.isfinite(found.covariance).all():
        return ""
    return (
        " (with fewer than two benchmark datasets to hold out nothing can be learnt about trusting "
        "a task's neighbourhood: the standings decide)"
    )


def _warning(u: float, benchmark_u: Array) -> str | None:
    benchmark_u = benchmark_u[~np.isnan(benchmark_u)]  # of a dataset added since the last compact
    if len(benchmark_u) == 0 or u <= benchmark_u.max():
        return None
    return (
        f"the task's distance {u:.3f} lies beyond every benchmark dataset's "
        f"({benchmark_u.min():.3f} to {benchmark_u.max():.3f}): its scores are extrapolated"
    )
