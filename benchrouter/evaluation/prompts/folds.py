"""Training and test parts of the protocols of single prompts, each with a fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Progress
from benchrouter.neighbours.index import Index
from benchrouter.scores import formulas
from benchrouter.scores.cells import Cells, cells_of
from benchrouter.scores.evidence import Evidence, evidence_of, model_costs_usd
from benchrouter.scores.expected.learn import (
    filled_by_dataset,
    joined,
    learn,
    own_distances,
    sampled,
)
from benchrouter.scores.expected.prompt_scores import Expectation
from benchrouter.scores.expected.views import Records
from benchrouter.scores.fit import fit
from benchrouter.scores.fitted import DISTANCE_QUANTILE, Fit, Settings
from benchrouter.scores.held_out import HeldOut, hold_out, without, without_dataset
from benchrouter.scores.pairs import Pairs, concatenate
from benchrouter.votes.outcomes import pack

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One training part and the records that are routed by it.

    Attributes
    ----------
    train, test : int64 arrays
        Records of the table, ascending.
    models : int64 array
        Positions in the table of the fit's models: those with a score in the training part.
    fit : Fit
        Of the training part, for routing single prompts only: when each dataset is left out in
        turn, the parts that serve tasks remain those of the whole table.
    """

    train: Rows
    test: Rows
    models: Rows
    fit: Fit


def random_split(table: BenchmarkTable, test_share: float, seed: int) -> tuple[Rows, Rows]:
    """Draw test records from every dataset; equal prompts stay together, across datasets too.

    Parameters
    ----------
    table : BenchmarkTable
    test_share : float
        Of each dataset's distinct prompts, rounded; at least one stays for training. A prompt of
        several datasets is drawn with the first of them.
    seed : int

    Returns
    -------
    train, test : int64 arrays
        Ascending. A record without any score is never tested, and a dataset keeps a record with a
        score for training.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1, or leaves no test record.
    """
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share must lie between 0 and 1, got {test_share}")
    scored = ~np.isnan(table.scores).all(axis=1)
    # A prompt on both sides would be its own nearest neighbour, and show the answer.
    number = {text: i for i, text in enumerate(sorted(set(table.prompts)))}
    prompt = np.array([number[text] for text in table.prompts])
    drawn, is_settled = (np.zeros(len(number), dtype=bool) for _ in range(2))
    for code in range(table.n_datasets):
        own = np.unique(prompt[(table.dataset == code) & scored])
        n_test = min(int(test_share * len(own) + 0.5), len(own) - 1)
        order = own[np.random.default_rng([seed, code]).permutation(len(own))]
        drawn[order[~is_settled[order]][: max(n_test - int(drawn[own].sum()), 0)]] = True
        is_settled[own] = True
    test = drawn[prompt] & scored
    for code in range(table.n_datasets):
        rows = np.flatnonzero((table.dataset == code) & scored)
        if len(rows) and test[rows].all():  # all were drawn with other datasets
            test &= prompt != prompt[rows[0]]
    if not test.any():
        raise ValueError(
            f"a test share of {test_share} of {table.n_records} records in {table.n_datasets} "
            "datasets leaves no record to test on: each dataset keeps one for training"
        )
    return np.flatnonzero(~test), np.flatnonzero(test)


def split_fold(
    table: BenchmarkTable,
    rows: NDArray[np.float32],
    train: Rows,
    test: Rows,
    settings: Settings,
    threads: int,
    progress: Progress | None = None,
) -> Fold:
    """Fit the training part of a split.

    Parameters
    ----------
    rows : float32 array, shape (n_records, dim)
        Unit rows of all records.
    """
    part = table.rows(train)
    models = np.flatnonzero(~np.isnan(part.scores).all(axis=0))
    part = part.select(models=[table.models[m] for m in models])
    scored = ~np.isnan(part.scores).all(axis=1)
    bare = np.bincount(part.dataset[scored], minlength=part.n_datasets) == 0
    if bare.any():  # a dataset without any score cannot be fitted on
        kept = ~bare[part.dataset]
        part, train = part.rows(kept), train[kept]
    own_rows = np.ascontiguousarray(rows[train])
    fitted = fit(part, own_rows, settings, threads=threads, progress=progress)
    return Fold(train, test, models, fitted)


def folds_without_each_dataset(
    table: BenchmarkTable,
    rows: NDArray[np.float32],
    settings: Settings,
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> Iterator[Fold]:
    """Leave out every dataset in turn, and fit the others.

    The fits equal those of :func:`split_fold`, but one search serves all of them: every record
    keeps enough neighbours outside its dataset to leave out one dataset more.

    Parameters
    ----------
    table : BenchmarkTable
        At least two datasets.
    rows : float32 array, shape (n_records, dim)
        Unit rows.
    settings : Settings
        Training pairs are taken at share 0.
    threads : int
        0 = all.
    progress : callable, optional

    Yields
    ------
    Fold
        In the order of the datasets.
    """
    everything = np.arange(table.n_records)
    if table.n_datasets == 2:  # the single dataset left is no benchmark of held-out datasets
        for code in range(2):
            test = table.dataset == code
            yield split_fold(table, rows, everything[~test], everything[test], settings, threads)
        return
    whole = fit(table, rows, settings, threads=threads, progress=progress)
    evidence = _evidence(table, rows, whole, threads)
    held_out = list(hold_out(evidence, seed=settings.seed, progress=progress))
    # A fit's own numbers, bit for bit: S3 of two models may differ by rounding alone.
    unlabelled = [np.empty(0, np.int64)]
    predicted = [cells_of(task, evidence, unlabelled, each=True) for task in held_out]
    for code in range(table.n_datasets):
        yield _fold_without(code, table, rows, whole, evidence, held_out, predicted)
        if progress is not None:
            progress("routing each dataset by the others", code + 1, table.n_datasets)


def _evidence(
    table: BenchmarkTable, rows: NDArray[np.float32], whole: Fit, threads: int
) -> Evidence:
    """Build the predictor's view; without thresholds it only measures distances."""
    k, kappa = whole.settings.k, whole.settings.kappa
    if whole.correct is not None:
        threshold = whole.settings.threshold
        return evidence_of(table, rows, k=k, kappa=kappa, threshold=threshold, threads=threads)
    return Evidence(
        index=Index(whole.embeddings, threads=threads, verify=False),
        outcomes=table.scores,
        correctness=table.scores,
        dataset=table.dataset,
        means=whole.raw_means,
        k=k,
        kappa=kappa,
        threads=threads,
    )


def _fold_without(
    code: int,
    table: BenchmarkTable,
    rows: NDArray[np.float32],
    whole: Fit,
    evidence: Evidence,
    held_out: list[HeldOut],
    predicted: list[Cells],
) -> Fold:
    train = np.flatnonzero(table.dataset != code)
    codes = np.delete(np.arange(table.n_datasets), code)
    models = np.flatnonzero(~np.isnan(whole.raw_means[codes]).all(axis=0))
    part = table.rows(train).select(models=[table.models[m] for m in models])
    others = [task for task in held_out if task.code != code]
    benchmark_u = np.array([predicted[task.code].u[0, 1 + code] for task in others])
    routable = whole.correct is not None
    means, raw_means = (a[np.ix_(codes, models)] for a in (whole.means, whole.raw_means))
    cost_usd = model_costs_usd(part)
    preferred = formulas.preference(cost_usd, part.prices, part.params_b)
    best = formulas.best_on_average(means if routable else raw_means, preferred)
    correct = pack(evidence.correctness[np.ix_(train, models)]) if routable else None
    binary = not isinstance(whole.raw, np.ndarray)
    fitted = replace(
        whole,
        models=part.models,
        datasets=part.datasets,
        metrics=part.metrics,
        thresholds=part.thresholds,
        embeddings=np.ascontiguousarray(rows[train]),
        dataset=part.dataset,
        sample_ids=part.sample_ids,
        prompts=part.prompts,
        raw=correct if binary and correct is not None else np.ascontiguousarray(part.scores),
        correct=correct,
        means=means,
        raw_means=raw_means,
        params_b=part.params_b,
        cost_usd=cost_usd,
        prices=part.prices,
        record_cost_usd=None if part.cost_usd is None else np.ascontiguousarray(part.cost_usd),
        pairs=Pairs(
            benchmark_u,
            np.array([predicted[task.code].p[0, 1 + code, models] for task in others]),
            np.arange(len(others), dtype=np.int32),
            np.zeros(len(others)),
        )
        if routable
        else concatenate([], len(models)),
        benchmark_u=benchmark_u,
        expectation=_expectation_without(
            code, table, whole, evidence, others, models, preferred, train
        ),
        distance_limit=_distance_limit(code, evidence, others),
        best_on_average=best,
    )
    return Fold(train, np.flatnonzero(table.dataset == code), models, fitted)


def _expectation_without(
    code: int,
    table: BenchmarkTable,
    whole: Fit,
    evidence: Evidence,
    others: list[HeldOut],
    models: Rows,
    preferred: NDArray[np.int32],
    train: Rows,
) -> Expectation:
    """What a fit without the dataset learns for the rule `auto`."""
    codes = np.delete(np.arange(table.n_datasets), code)
    every = len(models) == table.n_models
    scores_of = np.ascontiguousarray(table.scores[:, models])
    own_distance = np.full(table.n_records, np.nan, np.float32)
    samples = []
    for task in others:
        left = without_dataset(task, evidence.dataset, code)
        own_distance[task.rows] = own_distances(left, whole.settings.kappa)
        samples.append(sampled(left, whole.settings.seed))
    records = Records(
        embeddings=whole.embeddings,
        outcomes=whole.raw if every else scores_of,
        scores=scores_of,
        dataset=table.dataset,
        means=whole.raw_means[:, models],
        codes=codes,
    )
    learnt = learn(
        records,
        joined(samples),
        filled_by_dataset(own_distance, table.dataset),
        kappa=whole.settings.kappa,
        correctness=None if whole.correct is None else evidence.correctness[:, models],
        preferred=preferred,
        threads=evidence.threads,
    )
    return replace(
        learnt, of_dataset=learnt.of_dataset[codes], own_distance=learnt.own_distance[train]
    )


def _distance_limit(code: int, evidence: Evidence, others: list[HeldOut]) -> float:
    """Distance beyond which a prompt falls back, as a fit without the dataset has it."""
    near = [without(task, evidence, code).similarities[:, : evidence.kappa] for task in others]
    return float(np.quantile(formulas.prompt_distances(np.concatenate(near)), DISTANCE_QUANTILE))
