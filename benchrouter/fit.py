"""From a benchmark table to everything that routing needs: done once, then saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter import scores
from benchrouter.auto import HeldOutTasks
from benchrouter.encoder.precomputed import as_unit_rows
from benchrouter.evidence import Evidence, evidence_of, model_costs_usd, prior_of
from benchrouter.expected import Expectation
from benchrouter.expected_fit import (
    Sample,
    extended,
    filled_by_dataset,
    joined,
    learn,
    own_distances,
    sampled,
)
from benchrouter.holdout import (
    DRAWS,
    LABEL_SHARES,
    Pairs,
    Progress,
    concatenate,
    hold_out,
    pairs_of,
    sample_of,
    without,
)
from benchrouter.index import Index, check_count
from benchrouter.local import local_of_held_out, pooled, within_covariance
from benchrouter.search_faiss import Approximate
from benchrouter.views import Records
from benchrouter.voting import Outcomes, PackedOutcomes

if TYPE_CHECKING:
    from benchrouter.encoder import Fingerprint
    from benchrouter.table import BenchmarkTable

Array = NDArray[np.float64]
DISTANCE_QUANTILE = 0.99  # of the benchmark's own held-out prompts; beyond it a prompt falls back


@dataclass(frozen=True)
class Settings:
    """The numbers of the method, as METHOD and paper name them.

    Attributes
    ----------
    k, kappa : int
        Neighbours that vote, and that measure distance.
    sigma : float
        Width of the smoother's kernel.
    eta : float
        Least chance of beating the best model on average.
    threshold : float
        t: a vote above it predicts "correct".
    label_shares : tuple of float
        α of the training pairs.
    draws, seed : int
        Of the training pairs.
    """

    k: int = scores.K_HELM
    kappa: int = scores.KAPPA
    sigma: float = scores.SIGMA
    eta: float = scores.ETA
    threshold: float = scores.THRESHOLD
    label_shares: tuple[float, ...] = LABEL_SHARES
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers outside their range."""
        for name, least in (("k", 1), ("kappa", 1), ("draws", 1), ("seed", 0)):
            check_count(getattr(self, name), name, least)
        if not isinstance(self.label_shares, tuple):
            found = type(self.label_shares).__name__
            raise TypeError(f"label_shares must be a tuple of numbers, got {found}")
        if not self.sigma > 0.0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")
        for name in ("eta", "threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.label_shares or not all(0.0 <= a < 1.0 for a in self.label_shares):
            raise ValueError(
                f"label_shares must be numbers in [0, 1), at least one, got {self.label_shares}"
            )


@dataclass(frozen=True)
class Approximation:
    """An approximate index, and how near it comes to exact search.

    Attributes
    ----------
    factory : str
        faiss's name of it.
    index : Approximate
        Over the records of the last compact fit.
    recall : float
        Share of the k nearest records that it finds, in [0, 1], over held-out queries.
    agreement : float
        Share of those queries for which the rule "auto" chooses the same model, in [0, 1].
    n_queries : int
        How many there were.
    """

    factory: str
    index: Approximate
    recall: float
    agreement: float
    n_queries: int


@dataclass(frozen=True)
class Fit:
    """A fitted benchmark: what a router holds, and what its directory stores.

    Attributes
    ----------
    settings : Settings
    fingerprint : Fingerprint or None
        Of the encoder behind the embeddings, None = unknown.
    models, datasets : tuple of str
    metrics : tuple of str
        Of the datasets; "" = not stated.
    thresholds : float64 array, shape (n_datasets,)
        A score strictly above it is correct; NaN = none is known.
    embeddings : float32 array, shape (n_records, dim)
        Unit rows.
    dataset : int32 array, shape (n_records,)
    sample_ids, prompts : sequence of str
        One per record.
    raw : PackedOutcomes or float32 array, shape (n_records, n_models)
        Scores as recorded (packed where all are 0 or 1).
    correct : PackedOutcomes or None
        Correctness; None where a dataset has no threshold, and then only raw-score routing works.
    means, raw_means : float64 arrays, shape (n_datasets, n_models)
        Mean correctness and mean raw score; NaN = not run.
    params_b, cost_usd : float64 arrays, shape (n_models,)
        Billions of parameters, and mean recorded US$ per prompt; NaN = unknown.
    prices : float64 array, shape (n_models, 2)
        Listed US$ per million tokens in and out; NaN = unknown.
    record_cost_usd : float32 array, shape (n_records, n_models), or None
        Recorded US$ of every answer; NaN = unknown. None where none was recorded.
    pairs : Pairs
        Of the smoother.
    benchmark_u : float64 array, shape (n_datasets,)
        Distance of each dataset, held out, to the others. Empty for a single dataset.
    local : float64 array, shape (n_datasets, n_models)
        What each dataset's neighbourhood in the others says of the models' accuracy; NaN where
        there are no others, or no correctness.
    within : float64 array, shape (n_models, n_models)
        Covariance of two models' correctness on one record of a dataset.
    expectation : Expectation
        What the rule `auto` has learnt.
    distance_limit : float
        99th percentile of the held-out prompts' own distances.
    tau : float
        How many labelled prompts p̂ is worth.
    best_on_average, fallback : int
        Positions of the best model on average, and of the model for prompts without evidence.
    fallback_is_named : bool
        Whether the latter was asked for, and so stays whatever the best on average comes to be.
    compact : bool
        Whether pairs, benchmark_u, local, expectation, distance_limit and tau, which holding out
        teaches, are of these very records. If not, they are of those before the last additions:
        NaN in benchmark_u and local for a dataset that came since.
    approximation : Approximation or None
        What proposes neighbours instead of an exact search.
    """

    settings: Settings
    fingerprint: Fingerprint | None
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    thresholds: Array
    embeddings: NDArray[np.float32]
    dataset: NDArray[np.int32]
    sample_ids: Sequence[str]
    prompts: Sequence[str]
    raw: Outcomes
    correct: PackedOutcomes | None
    means: Array
    raw_means: Array
    params_b: Array
    cost_usd: Array
    prices: Array
    record_cost_usd: NDArray[np.float32] | None
    pairs: Pairs
    benchmark_u: Array
    local: Array
    within: Array
    expectation: Expectation
    distance_limit: float
    tau: float
    best_on_average: int
    fallback: int
    fallback_is_named: bool = False
    compact: bool = True
    approximation: Approximation | None = None

    @cached_property
    def prior(self) -> NDArray[np.float32]:
        """Vote of a prompt without evidence: standings of correctness, shape (n_models,)."""
        return prior_of(self.means)

    @cached_property
    def raw_prior(self) -> NDArray[np.float32]:
        """The same of raw scores."""
        return prior_of(self.raw_means)

    @cached_property
    def held_out_tasks(self) -> HeldOutTasks:
        """What the score `auto` learns from; without tasks where none could be held out."""
        codes = np.flatnonzero(~np.isnan(self.local).any(axis=1))
        standing = [prior_of(np.delete(self.means, code, axis=0)) for code in codes]
        return HeldOutTasks(
            accuracy=self.means[codes],
            standing=np.array(standing, dtype=np.float64).reshape(len(codes), len(self.models)),
            local=self.local[codes],
            distance=self.benchmark_u[codes] if len(codes) else np.empty(0),
            n_records=np.bincount(self.dataset, minlength=len(self.datasets))[codes],
            within=self.within,
            sigma=self.settings.sigma,
        )

    @cached_property
    def costs_known(self) -> bool:
        """Whether models are known to differ in cost: the cheaper of two equals is then taken."""
        cost = self.prices.sum(axis=1) if np.isnan(self.cost_usd).all() else self.cost_usd
        return len(np.unique(cost[~np.isnan(cost)])) > 1

    @cached_property
    def preferred(self) -> NDArray[np.int32]:
        """Rank of every model among equals, shape (n_models,)."""
        return scores.preference(self.cost_usd, self.prices, self.params_b)


def fit(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    settings: Settings,
    *,
    fingerprint: Fingerprint | None = None,
    fallback: str | None = None,
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
    fallback : str, optional
        Model for prompts without evidence; the best on average by default.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).
    learnt : Fit, optional
        Of the same models and some of these datasets: what holding out datasets taught it is
        kept, not learnt anew, which is what takes long.

    Returns
    -------
    Fit

    Raises
    ------
    TypeError, ValueError
        If the embeddings do not fit the table or are not unit rows, if the fallback is not one of
        the models, or if a model or a dataset has no score at all.
    """
    if fallback is not None and fallback not in table.models:
        raise ValueError(f"fallback {fallback!r} is not a model of the table: {table.models}")
    raw_means = scores.dataset_means(table.scores, table.dataset, table.n_datasets)
    for what, names, axis in (("models", table.models, 0), ("datasets", table.datasets, 1)):
        bare = [names[i] for i in np.flatnonzero(np.isnan(raw_means).all(axis=axis))]
        if bare:
            raise ValueError(f"{what} without any score: {', '.join(bare)}; leave them out")
    cost_usd = model_costs_usd(table)
    preferred = scores.preference(cost_usd, table.prices, table.params_b)
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
    best = scores.best_on_average(means if routable else raw_means, preferred)
    return Fit(
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
        fallback=best if fallback is None else table.models.index(fallback),
        fallback_is_named=fallback is not None,
        compact=learnt is None,
    )


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
        per_dataset.append(scores.prompt_distances(similarities))
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
        p_hat[i] = scores.smooth(
            pairs.u[here][:1], pairs.u[others], pairs.p[others], settings.sigma
        )[0]
    n_records = np.array([len(sample_of(evidence.dataset, code, settings.seed)) for code in codes])
    return scores.prior_weight_of_p(p, p_hat, n_records)
