"""A fit whose benchmark has changed: every update makes a new fit of an old one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Rows
from benchrouter.scores.fit import fit
from benchrouter.scores.fitted import Fit
from benchrouter.tables.changes import kept, with_model, with_records
from benchrouter.tables.table import BenchmarkTable
from benchrouter.votes.outcomes import unpack


def table_of(fitted: Fit) -> BenchmarkTable:
    """The table that a fit was made from, but for log-likelihoods, which a fit does not hold."""
    n = len(fitted.dataset)
    return BenchmarkTable(
        scores=np.ascontiguousarray(unpack(fitted.raw, np.arange(n))),
        dataset=fitted.dataset,
        datasets=fitted.datasets,
        models=fitted.models,
        sample_ids=list(fitted.sample_ids[:]),
        prompts=list(fitted.prompts[:]),
        source_rows=np.arange(n),
        n_source_rows=n,
        cost_usd=fitted.record_cost_usd,
        params_b=fitted.params_b,
        prices=fitted.prices,
        metrics=fitted.metrics,
        thresholds=fitted.thresholds,
    )


def add_records(
    old: Fit,
    table: BenchmarkTable,
    embed: Callable[[], Rows],
    *,
    compact: bool = True,
    threads: int = 0,
) -> Fit:
    """Add benchmark records.

    Parameters
    ----------
    old : Fit
    table : BenchmarkTable
        Results of some of its models on new records.
    embed : callable
        Gives the unit rows of the new records, once they are known to fit.
    compact : bool
        Whether to learn anew what holding out datasets teaches.
    threads : int
        0 = all.

    Raises
    ------
    TypeError, ValueError
        Naming models that the fit lacks, records that it has already, or what is wrong with the
        embeddings.
    """
    whole = with_records(table_of(old), table)
    rows = embed()
    if rows.shape[1] != old.embeddings.shape[1]:
        raise ValueError(
            f"embeddings have dim {rows.shape[1]}, the router's have dim {old.embeddings.shape[1]}"
        )
    rows = np.concatenate((old.embeddings, rows))
    return _refit(old, whole, rows, learnt=None if compact else old, threads=threads)


def add_model(
    old: Fit, name: str, results: BenchmarkTable | NDArray[np.floating], *, threads: int = 0
) -> Fit:
    """Add a model with its scores on the records.

    Parameters
    ----------
    old : Fit
    name : str
    results : BenchmarkTable or float array, shape (n_records,)
        As in `Router.add_model`.
    threads : int
        0 = all.

    Raises
    ------
    TypeError, ValueError
        If there is such a model; naming records that are not there, or with another prompt.
    """
    return _refit(old, with_model(table_of(old), name, results), old.embeddings, threads=threads)


def remove(
    old: Fit,
    *,
    records: Iterable[tuple[str, str]] = (),
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    threads: int = 0,
) -> Fit:
    """Remove records, models and whole datasets.

    Parameters
    ----------
    old : Fit
    records : iterable of (dataset, sample_id)
    models, datasets : sequence of str
    threads : int
        0 = all.

    Raises
    ------
    TypeError, ValueError
        Naming what is not there, or what would be left without any score; if a model is the
        fallback that was asked for; if nothing would be left.
    """
    table, fallback = table_of(old), old.settings.fallback
    left, mask = kept(table, records=records, models=models, datasets=datasets)
    if fallback is not None and fallback not in left:
        raise ValueError(f"{fallback!r} is the router's fallback model and cannot go")
    rest = table.rows(mask).select(models=left)
    return _refit(old, rest, old.embeddings[mask], threads=threads)


def compacted(old: Fit, *, threads: int = 0) -> Fit:
    """Learn anew what holding out datasets teaches; the fit itself where nothing was added.

    Parameters
    ----------
    old : Fit
    threads : int
        0 = all.
    """
    return old if old.compact else _refit(old, table_of(old), old.embeddings, threads=threads)


def _refit(
    old: Fit, table: BenchmarkTable, rows: Rows, *, threads: int, learnt: Fit | None = None
) -> Fit:
    """Fit a table with rows that are already unit, in its own order."""
    table = replace(table, source_rows=np.arange(len(rows)), n_source_rows=len(rows))
    return fit(
        table, rows, old.settings, fingerprint=old.fingerprint, threads=threads, learnt=learnt
    )
