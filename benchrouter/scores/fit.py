"""From a benchmark table to everything that routing needs: done once, then saved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.files.arrays import Array, Progress
from benchrouter.neighbours.index import Index
from benchrouter.scores import formulas
from benchrouter.scores.approximation import approximation_of
from benchrouter.scores.evidence import Evidence, evidence_of, model_costs_usd
from benchrouter.scores.expected.learn import (
    Sample,
    extended,
    filled_by_dataset,
    joined,
    learn,
    own_distances,
    sampled,
)
from benchrouter.scores.expected.views import Records
from benchrouter.scores.fitted import DISTANCE_QUANTILE, Fit, Settings
from benchrouter.scores.held_out import hold_out, sample_of, without
from benchrouter.scores.neighbourhood import local_of_held_out, pooled, within_covariance
from benchrouter.scores.pairs import Pairs, concatenate, pairs_of
from benchrouter.votes.outcomes import PackedOutcomes

if TYPE_CHECKING:
    from benchrouter.embeddings import Fingerprint
    from benchrouter.tables.table import BenchmarkTable


def fit(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    settings: Settings,
    *,
    fingerprint: Fingerprint | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    learnt: Fit | None = None,
) -> Fit:
    """Fit a benchmark table with given embeddings.

    Parameters
    ----------
    table : BenchmarkTable
    embeddings : float16 or float32 array, shape (n_records, dim)
        Unit rows, one per record of the table or of the files it was read from.
    settings : Settings
    fingerprint : Fingerprint, optional
        Of the encoder that made the embeddings.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).
    learnt : Fit, optional
        Of the same models and some of these datasets: what holding out datasets taught it is
        kept, not learnt anew, which is what takes long.

    Raises
    ------
    TypeError, ValueError
        If the embeddings do not fit the table or are not unit rows, if the fallback is not one of
        the models, or if a model or a dataset has no score at all.
    ImportError
        If an approximate index is asked for and faiss is not installed.
    """
    raw_means = formulas.dataset_means(table.scores, table.dataset, table.n_datasets)
    _check(table, settings, raw_means)
    cost_usd = model_costs_usd(table)
    preferred = formulas.preference(cost_usd, table.prices, table.params_b)
    routable = not np.isnan(table.thresholds).any()
    evidence = _evidence(table, embeddings, raw_means, settings, routable, threads)
    correct = evidence.outcomes if isinstance(evidence.outcomes, PackedOutcomes) else None
    correctness = evidence.correctness
    is_binary = bool(np.all((table.scores == correctness) | np.isnan(correctness)))
    means = evidence.means if routable else np.full_like(raw_means, np.nan)
    raw = correct if is_binary and correct is not None else np.ascontiguousarray(table.scores)
    records = Records(
        embeddings=evidence.index.embeddings,
        outcomes=raw,
        scores=table.scores,
        dataset=table.dataset,
        means=raw_means,
        codes=np.arange(table.n_datasets),
    )
    known = correctness if routable else None
    if learnt is None:
        pairs, benchmark_u, local, distance_limit, sample, own_distance = _held_out(
            evidence, settings, routable, progress
        )
        expectation = learn(
            records,
            sample,
            own_distance,
            kappa=settings.kappa,
            correctness=known,
            preferred=preferred,
            threads=threads,
        )
    else:
        pairs, benchmark_u, local, distance_limit = _kept(learnt, table.datasets)
        expectation = extended(learnt.expectation, records)
    within = pooled(within_covariance(correctness, table.dataset, table.n_datasets))
    best = formulas.best_on_average(means if routable else raw_means, preferred)
    fitted = Fit(
        settings=settings,
        fingerprint=fingerprint,
        models=table.models,
        datasets=table.datasets,
        metrics=table.metrics,
        thresholds=table.thresholds,
        embeddings=evidence.index.embeddings,
        dataset=table.dataset,
        sample_ids=table.sample_ids,
        prompts=table.prompts,
        raw=raw,
        correct=correct,
        means=means,
        raw_means=raw_means,
        params_b=table.params_b,
        cost_usd=cost_usd,
        prices=table.prices,
        record_cost_usd=None if table.cost_usd is None else np.ascontiguousarray(table.cost_usd),
        pairs=pairs,
        benchmark_u=benchmark_u,
        local=local,
        within=within if routable else np.full_like(within, np.nan),
        expectation=expectation,
        distance_limit=distance_limit,
        tau=_tau(pairs, evidence, settings) if learnt is None else learnt.tau,
        best_on_average=best,
        compact=learnt is None,
        approximation=None if learnt is None else learnt.approximation,
    )
    if learnt is not None or settings.index is None:
        return fitted
    return replace(fitted, approximation=approximation_of(fitted, settings.index, threads=threads))


def _check(table: BenchmarkTable, settings: Settings, raw_means: Array) -> None:
    """Refuse a fallback that is no model, and models and datasets without any score."""
    if settings.fallback not in (None, *table.models):
        raise ValueError(
            f"fallback {settings.fallback!r} is not a model of the table: {table.models}"
        )
    for what, names, axis in (("models", table.models, 0), ("datasets", table.datasets, 1)):
        bare = [names[i] for i in np.flatnonzero(np.isnan(raw_means).all(axis=axis))]
        if bare:
            raise ValueError(f"{what} without any score: {', '.join(bare)}; leave them out")


def _evidence(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    raw_means: Array,
    settings: Settings,
    routable: bool,
    threads: int,
) -> Evidence:
    """Build the predictor's view; without thresholds it only measures distances."""
    if routable:
        return evidence_of(
            table,
            embeddings,
            k=settings.k,
            kappa=settings.kappa,
            threshold=settings.threshold,
            threads=threads,
        )
    rows = as_unit_rows(table.aligned(embeddings), "embeddings")
    return Evidence(
        index=Index(rows, threads=threads, verify=False),
        outcomes=table.scores,
        correctness=table.scores,
        dataset=table.dataset,
        means=raw_means,
        k=settings.k,
        kappa=settings.kappa,
        threads=threads,
    )


def _held_out(
    evidence: Evidence, settings: Settings, routable: bool, progress: Progress | None
) -> tuple[Pairs, Array, Array, float, Sample, NDArray[np.float32]]:
    """What holding out teaches, and the held-out records themselves with their own distances.

    In order: training pairs; every dataset's distance and neighbourhood; the limit for single
    prompts; a sample of the records; how far each record lies from its nearest others.
    """
    n_models = evidence.means.shape[1]
    local = np.full_like(evidence.means, np.nan)
    parts, samples, per_dataset = [], [], []
    benchmark_u = np.empty(evidence.n_datasets)
    own_distance = np.full(len(evidence.dataset), np.nan, np.float32)
    one = evidence.n_datasets == 1
    for held_out in hold_out(evidence, seed=settings.seed, progress=progress):
        own = own_distances(held_out, settings.kappa)
        own_distance[held_out.rows] = own
        samples.append(sampled(held_out, settings.seed))
        if one:
            per_dataset.append(own[~np.isnan(own)].astype(np.float64))
            continue
        similarities = without(held_out, evidence).similarities[:, : settings.kappa]
        per_dataset.append(formulas.prompt_distances(similarities))
        benchmark_u[held_out.code] = per_dataset[-1].mean()
        if routable:
            local[held_out.code] = local_of_held_out(held_out, evidence)[2]
            parts.append(
                pairs_of(
                    held_out,
                    evidence,
                    label_shares=settings.label_shares,
                    draws=settings.draws,
                    seed=settings.seed,
                )
            )
    distances = np.concatenate(per_dataset)
    limit = float(np.quantile(distances, DISTANCE_QUANTILE)) if len(distances) else np.inf
    return (
        concatenate(parts, n_models),
        np.empty(0) if one else benchmark_u,
        local,
        limit,
        joined(samples),
        filled_by_dataset(own_distance, evidence.dataset),
    )


def _kept(learnt: Fit, datasets: tuple[str, ...]) -> tuple[Pairs, Array, Array, float]:
    """What :func:`_held_out` found for an earlier fit, by the numbers of these datasets."""
    codes = np.array([datasets.index(name) for name in learnt.datasets], dtype=np.int32)
    local = np.full((len(datasets), len(learnt.models)), np.nan)
    local[codes] = learnt.local
    benchmark_u = learnt.benchmark_u
    if len(benchmark_u):
        benchmark_u = np.full(len(datasets), np.nan)
        benchmark_u[codes] = learnt.benchmark_u
    pairs = replace(learnt.pairs, dataset=codes[learnt.pairs.dataset])
    return pairs, benchmark_u, local, learnt.distance_limit


def _tau(pairs: Pairs, evidence: Evidence, settings: Settings) -> float:
    """Weight of p̂ in labelled prompts, from how far it strays on held-out datasets.

    The pairs of a dataset are kept from its own p̂; the predictors behind the other pairs did see
    its records, as in the published nesting.
    """
    least = min(settings.label_shares)
    codes = np.unique(pairs.dataset)
    if len(codes) < 2:
        return 1.0
    p, p_hat = (np.empty((len(codes), evidence.means.shape[1])) for _ in range(2))
    for i, code in enumerate(codes):
        here = (pairs.dataset == code) & (pairs.share == least)
        others = pairs.dataset != code
        p[i] = pairs.p[here][0]
        p_hat[i] = formulas.smooth(
            pairs.u[here][:1], pairs.u[others], pairs.p[others], settings.sigma
        )[0]
    n_records = np.array([len(sample_of(evidence.dataset, code, settings.seed)) for code in codes])
    return formulas.prior_weight_of_p(p, p_hat, n_records)
