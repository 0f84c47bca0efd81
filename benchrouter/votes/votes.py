"""Neighbours to votes, decisions and task scores; the arithmetic is benchrouter._core's.

Outcomes are what the benchmark's records say of the models: :class:`PackedOutcomes` (0/1
correctness, one bit per record and model), or float32 scores of shape (n_records, n_models) with
NaN = missing. Neighbours are record numbers, int64, shape (n_queries, n_columns), −1 = none; the
first ``k`` columns vote. Arguments are checked, never converted; values of big arrays (record
numbers, weights, similarities, scores) are checked as they are read, so after an error the content
of ``out`` is unspecified. All functions release the GIL and may be called from many threads.

:func:`votes` and :func:`decide` also take torch tensors, all on one CUDA device, and answer with
tensors there, bit for bit those of the CPU (:mod:`benchrouter.votes.on_device`); ``threads`` and
``simd`` are not used there.
"""

from __future__ import annotations

import sys
from math import inf
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.files.arrays import Bits, Floats, Ids
from benchrouter.votes.outcomes import Chosen, Outcomes, PackedOutcomes, TaskScores, Votes

Simd: TypeAlias = Literal["auto", "scalar", "avx2", "avx512"]


def votes(
    neighbours: Ids,
    outcomes: Outcomes,
    *,
    prior: Floats,
    k: int | None = None,
    prior_weight: float = 0.0,
    weights: Floats | None = None,
    threads: int = 0,
    simd: Simd = "auto",
    out: Votes | None = None,
) -> Votes:
    """Let the neighbours of every query vote on every model.

    ``vote_m = (Σ w·y + prior_weight·prior_m) / (Σ w + prior_weight)`` over the voting neighbours
    with an outcome of model m; ``prior_m`` where there is none, or where all weigh 0. Summed in
    float64 in column order, rounded once. arXiv 2309.15789, eq. 11.

    Parameters
    ----------
    neighbours : int64 array, shape (n_queries, n_columns)
        Record numbers, −1 = none.
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        Correctness, or any finite scores with NaN = missing.
    prior : float32 array, shape (n_models,)
        The vote where no neighbour has an outcome.
    k : int, optional
        The first k columns vote, at most 65535; all of them by default.
    prior_weight : float
        Pseudo-records with the prior's outcome, finite and at least 0.
    weights : float32 array, shape of neighbours, optional
        Weight of every neighbour, finite and at least 0.
    threads : int
        0 = as many as the process may use.
    simd : {"auto", "scalar", "avx2", "avx512"}
        Instruction set; the answer is the same.
    out : Votes, optional
        Arrays to write to, float32 and uint16 of shape (n_queries, n_models).

    Returns
    -------
    Votes
        `out`, or new arrays.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    if _on_device(neighbours):
        from benchrouter.votes import on_device as votes_on_device

        return votes_on_device.votes(
            neighbours, outcomes, prior=prior, k=k, prior_weight=prior_weight, weights=weights,
            out=out,
        )  # fmt: skip
    bits, present, scores, n_models = outcome_arrays(outcomes)
    out_votes, out_support = _arrays_of(out, Votes)
    return Votes(
        *_core.votes(
            neighbours=neighbours, bits=bits, present=present, scores=scores, n_models=n_models,
            prior=prior, k=k, prior_weight=prior_weight, weights=weights, threads=threads,
            simd=simd, out_votes=out_votes, out_support=out_support,
        )
    )  # fmt: skip


def decide(
    neighbours: Ids,
    similarities: Floats,
    outcomes: Outcomes,
    *,
    prior: Floats,
    preference: NDArray[np.int32],
    k: int,
    kappa: int,
    rule: Literal["mean", "s3"] = "mean",
    prior_weight: float = 1.0,
    threshold: float = 0.5,
    p_table: Floats | None = None,
    p_start: float = 0.0,
    p_step: float = 1.0,
    distance_limit: float = inf,
    fallback_model: int = 0,
    allowed: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    threads: int = 0,
    simd: Simd = "auto",
    out: Chosen | None = None,
) -> Chosen:
    """Choose a model for every query, without any (n_queries, n_models) array.

    Rule "mean": a model's score is its vote (with ``prior_weight=0`` the paper's raw rule). Rule
    "s3": ``ḡ·p + (1 − ḡ)(1 − p)``, ``ḡ = vote > threshold`` in float64 and without the prior's
    weight, p read off the model's column of `p_table` at the query's distance u, linearly between
    its rows and held at its ends. ``u = mean of max(1 − similarity, 1e-7)`` over the first kappa
    neighbours. Scores are rounded to float32 and the largest wins; equal scores go to the smaller
    preference number. Without support of any model, without neighbours, or beyond the distance
    limit, the fallback model is taken. Where `allowed` is given, the answer is that of a benchmark
    of these models alone.

    Parameters
    ----------
    neighbours : int64 array, shape (n_queries, n_columns)
        Record numbers, −1 = none.
    similarities : float32 array, same shape
        Cosine similarities, finite where there is a neighbour among the first kappa columns.
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        Correctness, or any finite scores with NaN = missing; at least one model.
    prior : float32 array, shape (n_models,)
        The vote where no neighbour has an outcome.
    preference : int32 array, shape (n_models,)
        A permutation of 0 … n_models − 1; among equal scores the smallest wins.
    k : int
        The first k columns vote, at most 65535.
    kappa : int
        The first kappa columns give the distance.
    rule : {"mean", "s3"}
        How votes become scores.
    prior_weight : float
        Pseudo-records with the prior's outcome (rule "mean"), finite and at least 0.
    threshold : float
        Votes strictly above it predict success (rule "s3").
    p_table : float32 array, shape (n_grid, n_models), optional
        Chance that the prediction is right at distance ``p_start + i·p_step`` (rule "s3").
    p_start, p_step : float
        The grid of `p_table`, in cosine distance.
    distance_limit : float
        Queries with a larger u fall back.
    fallback_model : int
        Column of the fallback model.
    allowed : bool array, shape (n_models,), optional
        Models that may be chosen, the fallback model among them; all of them by default.
    weights : float32 array, shape of neighbours, optional
        Weight of every neighbour, finite and at least 0.
    threads : int
        0 = as many as the process may use.
    simd : {"auto", "scalar", "avx2", "avx512"}
        Instruction set; the answer is the same.
    out : Chosen, optional
        Arrays of shape (n_queries,) to write to.

    Returns
    -------
    Chosen
        `out`, or new arrays.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    if _on_device(neighbours):
        from benchrouter.votes import on_device as votes_on_device

        return votes_on_device.decide(
            neighbours, similarities, outcomes, prior=prior, preference=preference, k=k,
            kappa=kappa, rule=rule, prior_weight=prior_weight, threshold=threshold,
            p_table=p_table, p_start=p_start, p_step=p_step, distance_limit=distance_limit,
            fallback_model=fallback_model, allowed=allowed, weights=weights, out=out,
        )  # fmt: skip
    bits, present, scores, n_models = outcome_arrays(outcomes)
    return Chosen(
        *_core.decide(
            neighbours=neighbours, similarities=similarities, bits=bits, present=present,
            scores=scores, n_models=n_models, prior=prior, preference=preference, k=k, kappa=kappa,
            rule=rule, prior_weight=prior_weight, threshold=threshold, p_table=p_table,
            p_start=p_start, p_step=p_step, distance_limit=distance_limit,
            fallback_model=fallback_model, allowed=allowed, weights=weights, threads=threads,
            simd=simd, out=_arrays_of(out, Chosen),
        )
    )  # fmt: skip


def task_scores(
    neighbours: Ids,
    outcomes: Outcomes,
    offsets: Ids,
    *,
    prior: Floats,
    k: int | None = None,
    threshold: float = 0.5,
    weights: Floats | None = None,
    threads: int = 0,
    simd: Simd = "auto",
) -> TaskScores:
    """Score every model on every task: S1 and S2 (arXiv 2309.15789, eq. 3 and 4).

    Parameters
    ----------
    neighbours : int64 array, shape (n_queries, n_columns)
        Record numbers, −1 = none; the queries of a task follow each other.
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        Correctness, or any finite scores with NaN = missing.
    offsets : int64 array, shape (n_tasks + 1,)
        Ascending from 0 to n_queries: task i is the queries ``offsets[i]:offsets[i + 1]``.
    prior : float32 array, shape (n_models,)
        The vote where no neighbour has an outcome.
    k : int, optional
        The first k columns vote, at most 65535; all of them by default.
    threshold : float
        Votes strictly above it count for S2.
    weights : float32 array, shape of neighbours, optional
        Weight of every neighbour, finite and at least 0.
    threads : int
        0 = as many as the process may use; the sums do not depend on it.
    simd : {"auto", "scalar", "avx2", "avx512"}
        Instruction set; the answer is the same.

    Returns
    -------
    TaskScores
        S1 and S2 are NaN for a task without queries.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    bits, present, scores, n_models = outcome_arrays(outcomes)
    return TaskScores(
        *_core.task_scores(
            neighbours=neighbours, bits=bits, present=present, scores=scores, n_models=n_models,
            offsets=offsets, prior=prior, k=k, threshold=threshold, weights=weights,
            threads=threads, simd=simd,
        )
    )  # fmt: skip


def _on_device(array: Any) -> bool:
    """Whether it is a tensor on a CUDA device; without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor) and array.is_cuda


def outcome_arrays(outcomes: Outcomes) -> tuple[Bits | None, Bits | None, Floats | None, int]:
    """Outcomes as the extension takes them: bits, presence mask, scores, number of models."""
    if isinstance(outcomes, PackedOutcomes):
        return outcomes.bits, outcomes.present, None, outcomes.n_models
    if isinstance(outcomes, np.ndarray):
        return None, None, outcomes, 0
    raise TypeError(
        f"outcomes must be PackedOutcomes or a float32 array, got {type(outcomes).__name__}"
    )


def _arrays_of(out: Any, kind: type[Votes] | type[Chosen]) -> tuple[Any, ...]:
    if out is None:
        return (None,) * len(kind._fields)
    if not isinstance(out, kind):
        raise TypeError(f"out must be {kind.__name__}, got {type(out).__name__}")
    return tuple(out)
