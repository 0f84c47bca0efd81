"""One model per prompt: every rule and baseline on prompts outside its training part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.evaluation.prompts.baselines import has_scikit_learn
from benchrouter.evaluation.prompts.folds import (
    Fold,
    folds_without_each_dataset,
    random_split,
    split_fold,
)
from benchrouter.evaluation.prompts.prompt_results import PROTOCOLS, PromptResults, Protocol
from benchrouter.evaluation.prompts.routing import Collected, route_fold
from benchrouter.evaluation.prompts.rule_rows import PromptRow, prompt_rows
from benchrouter.files.arrays import Progress
from benchrouter.scores import formulas
from benchrouter.scores.fitted import Settings

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable


__all__ = ["PromptResults", "PromptRow", "evaluate_prompts", "prompt_rows"]


def evaluate_prompts(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    *,
    protocol: Protocol,
    k: int = formulas.K_HELM,
    kappa: int = formulas.KAPPA,
    test_share: float = 0.3,
    seed: int = 0,
    metrics: Mapping[str, BenchmarkTable] | None = None,
    baselines: bool = True,
    threads: int = 0,
    progress: Progress | None = None,
) -> PromptResults:
    """Route test prompts by routers fitted on the training part, and by simple baselines.

    Parameters
    ----------
    table : BenchmarkTable
    embeddings : float array, shape (n_records, dim)
        Unit rows, in the order of the records (or of the file that the table was read from).
    protocol : "random split" or "leave-one-dataset-out"
        The first tests a share of every dataset's prompts, the second each dataset in turn by a
        router that never saw it.
    k, kappa : int
        Neighbours that vote, and that measure distance. The rule "raw" takes 10 votes.
    test_share : float
        Of a random split.
    seed : int
        Of a random split.
    metrics : dict of str to BenchmarkTable, optional
        Further metrics of the same records and models, measured on the same choices.
    baselines : bool
        Add linear regression and kNN-100 where scikit-learn is installed.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    PromptResults
        The smoother behind "s3" has training pairs at label share 0 only.

    Raises
    ------
    TypeError, ValueError
        If the protocol is unknown, if it leaves a dataset out and the table has only one, or if
        embeddings or metrics do not fit the table.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {PROTOCOLS}, got {protocol!r}")
    settings = Settings(k=k, kappa=kappa, label_shares=(0.0,), draws=1, seed=seed)
    unit_rows = as_unit_rows(table.aligned(embeddings), "embeddings")
    notes: list[str] = []
    part, records, models = _with_scores(table, notes)
    unit_rows = np.ascontiguousarray(unit_rows[records])
    folds = _folds(part, unit_rows, protocol, test_share, settings, threads, progress)
    further = {
        name: _recorded_elsewhere(table, other, name, notes)
        for name, other in (metrics or {}).items()
    }
    with_baselines = baselines and has_scikit_learn()
    if baselines and not with_baselines:
        notes.append(
            "linear regression and kNN-100 are left out: they need scikit-learn "
            "(pip install 'benchrouter[evaluate]')"
        )
    collected = Collected(table, records, models, notes)
    for fold in folds:
        route_fold(fold, part, unit_rows, collected, with_baselines, threads)
    return _results(collected, protocol, settings, further)


def _folds(
    part: BenchmarkTable,
    unit_rows: NDArray[np.float32],
    protocol: Protocol,
    test_share: float,
    settings: Settings,
    threads: int,
    progress: Progress | None,
) -> Iterable[Fold]:
    if protocol == "random split":
        train, test = random_split(part, test_share, settings.seed)
        return [split_fold(part, unit_rows, train, test, settings, threads, progress)]
    if part.n_datasets < 2:
        raise ValueError(
            "leaving a dataset out needs at least 2 datasets with scores, found "
            f"{part.n_datasets}: use the random split"
        )
    return folds_without_each_dataset(part, unit_rows, settings, threads=threads, progress=progress)


def _results(
    collected: Collected,
    protocol: Protocol,
    settings: Settings,
    further: Mapping[str, NDArray[np.float32]],
) -> PromptResults:
    """Keep what was collected of the test prompts that have a score."""
    table = collected.table
    rows = np.flatnonzero(collected.tested & ~np.isnan(table.scores).all(axis=1))

    def of(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values[rows]

    # A rule known in some folds only is left out; the note of the others says why.
    picks = {rule: picked[rows] for rule, picked in collected.picks.items()}
    return PromptResults(
        protocol=protocol,
        datasets=table.datasets,
        models=table.models,
        k=settings.k,
        kappa=settings.kappa,
        seed=settings.seed,
        rows=rows,
        dataset=table.dataset[rows],
        picks={rule: picked for rule, picked in picks.items() if (picked >= 0).all()},
        predicted={rule: values[rows] for rule, values in collected.predicted.items()},
        fallback={rule: flags[rows] for rule, flags in collected.fallback.items()},
        distance=collected.distance[rows],
        distance_limit=collected.distance_limit[rows],
        scores={"score": table.scores[rows], **{n: values[rows] for n, values in further.items()}},
        correctness=None if np.isnan(table.thresholds).any() else table.correctness()[rows],
        cost_usd=of(table.cost_usd),
        expected_cost_usd=of(collected.expected_cost_usd),
        params_b=table.params_b,
        notes=tuple(dict.fromkeys(collected.notes)),
        log_likelihood=of(table.log_likelihood),
        chance=of(collected.chance),
        chance_spread=None if collected.chance is None else collected.chance_spread[rows],
    )


def _with_scores(
    table: BenchmarkTable, notes: list[str]
) -> tuple[BenchmarkTable, NDArray[np.int64], NDArray[np.int64]]:
    """Leave out datasets and models without any score; return the kept records and models too."""
    present = ~np.isnan(table.scores)
    models = np.flatnonzero(present.any(axis=0))
    counts = np.bincount(table.dataset[present.any(axis=1)], minlength=table.n_datasets)
    records = np.flatnonzero(counts[table.dataset] > 0)
    if not len(records):
        raise ValueError(f"none of the {table.n_records} records has a score")
    for what, names in (
        ("models", [m for i, m in enumerate(table.models) if i not in set(models.tolist())]),
        ("datasets", [d for i, d in enumerate(table.datasets) if not counts[i]]),
    ):
        if names:
            notes.append(f"{what} without any score are left out: {', '.join(names)}")
    part = table if len(records) == table.n_records else table.rows(records)
    part = part.select(models=[table.models[m] for m in models])
    # From here on rows of embeddings are numbered within the part, not within the files.
    part = replace(part, source_rows=np.arange(len(records)), n_source_rows=len(records))
    return part, records, models


def _recorded_elsewhere(
    table: BenchmarkTable, other: BenchmarkTable, name: str, notes: list[str]
) -> NDArray[np.float32]:
    """Scores of another metric in the records and models of this table; NaN where it has none."""

    def keys(of: BenchmarkTable) -> list[tuple[str, str]]:
        names = [of.datasets[code] for code in of.dataset.tolist()]
        return list(zip(names, of.sample_ids, strict=True))

    place = {key: row for row, key in enumerate(keys(other))}
    found = np.array([place.get(key, -1) for key in keys(table)], dtype=np.int64)
    columns = np.array([other.models.index(m) if m in other.models else -1 for m in table.models])
    if not (found >= 0).any() or not (columns >= 0).any():
        raise ValueError(
            f"metric {name!r} shares no record, or no model, with the table: it has models "
            f"{list(other.models)} and datasets {list(other.datasets)}"
        )
    values = np.full(table.scores.shape, np.nan, dtype=np.float32)
    here, there = np.flatnonzero(found >= 0), np.flatnonzero(columns >= 0)
    values[np.ix_(here, there)] = other.scores[np.ix_(found[here], columns[there])]
    lost = int((np.isnan(values) & ~np.isnan(table.scores)).sum())
    if lost:
        notes.append(
            f"metric {name!r} lacks {lost} of the {int((~np.isnan(table.scores)).sum())} values "
            "that the score has; means are over those that are there"
        )
    return values
