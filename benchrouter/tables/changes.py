"""A benchmark that changes: the table behind a fit, and the same with more or less in it.

All functions return new tables. Records are known by (dataset, sample_id).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.table import BenchmarkTable

Key = tuple[str, str]
NAMED = 5  # records that an error names
Costs = NDArray[np.float32] | None


def with_records(table: BenchmarkTable, added: BenchmarkTable) -> BenchmarkTable:
    """Append the records of another table.

    Parameters
    ----------
    table, added : BenchmarkTable
        `added` has some of the models; the others count as not run on its records. A dataset that
        `table` has keeps its metric and threshold, and models keep what is known of them.

    Returns
    -------
    BenchmarkTable
        The old records, then the new ones.

    Raises
    ------
    ValueError
        Naming models that `table` lacks, and records that it has already.
    """
    unknown = [name for name in added.models if name not in table.models]
    if unknown:
        raise ValueError(
            f"the added table has models that the router lacks: {', '.join(unknown)}; add each "
            "with add_model, or leave them out with select"
        )
    _refuse("the added table repeats", repeated(added))
    _refuse("the router already has", sorted(set(keys(added)) & set(keys(table))))
    datasets = tuple(sorted({*table.datasets, *added.datasets}))
    stated = {**_of_datasets(added), **_of_datasets(table)}
    columns = [table.models.index(name) for name in added.models]
    n = table.n_records + added.n_records
    return replace(
        table,
        scores=np.concatenate((table.scores, _spread(added.scores, columns, table.n_models))),
        dataset=np.concatenate((_codes(table, datasets), _codes(added, datasets))),
        datasets=datasets,
        sample_ids=table.sample_ids + added.sample_ids,
        prompts=table.prompts + added.prompts,
        source_rows=np.arange(n),
        n_source_rows=n,
        cost_usd=_joined_costs(table, added, columns),
        log_likelihood=None,
        metrics=tuple(stated[name][0] for name in datasets),
        thresholds=np.array([stated[name][1] for name in datasets]),
    )


def with_model(
    table: BenchmarkTable, name: str, results: BenchmarkTable | NDArray[np.floating]
) -> BenchmarkTable:
    """Append a model.

    Parameters
    ----------
    table : BenchmarkTable
    name : str
    results : BenchmarkTable or float array, shape (n_records,)
        A table with a column of that name, whose records are some of `table`'s, in any order (the
        model was not run on the others); its costs, parameters and prices are taken too. Or scores
        in the order of `table`'s records, NaN = not run.

    Raises
    ------
    TypeError, ValueError
        If there is such a model already, or none in `results`; naming records that `table` lacks,
        or has with another prompt.
    """
    if name in table.models:
        raise ValueError(f"the router already has the model {name!r}: remove it first")
    if not isinstance(results, BenchmarkTable):
        scores = np.asarray(results)
        if scores.shape != (table.n_records,) or not np.issubdtype(scores.dtype, np.floating):
            raise ValueError(
                f"scores of {name!r} must be floats of shape ({table.n_records},), got "
                f"{scores.dtype} {scores.shape}"
            )
        column, cost_usd = scores.astype(np.float32)[:, None], None
        params_b, prices = np.nan, np.full(2, np.nan)
    else:
        if name not in results.models:
            raise ValueError(f"no model {name!r} in the table, which has {list(results.models)}")
        m = results.models.index(name)
        rows = _rows_of(table, results)
        column = _at(rows, results.scores[:, m], table.n_records)
        cost_usd = None
        if results.cost_usd is not None:
            cost_usd = _at(rows, results.cost_usd[:, m], table.n_records)
        params_b, prices = results.params_b[m], results.prices[m]
    costs = table.cost_usd
    if costs is not None or cost_usd is not None:
        nothing = np.full(table.scores.shape, np.nan, np.float32)
        unknown = np.full((table.n_records, 1), np.nan, np.float32)
        costs = np.concatenate(
            (nothing if costs is None else costs, unknown if cost_usd is None else cost_usd), axis=1
        )
    return replace(
        table,
        scores=np.concatenate((table.scores, column), axis=1),
        models=(*table.models, name),
        cost_usd=costs,
        log_likelihood=None,
        params_b=np.append(table.params_b, params_b),
        prices=np.concatenate((table.prices, prices[None])),
    )


def kept(
    table: BenchmarkTable,
    *,
    records: Iterable[Key] = (),
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """What is left of a table without some records, models and datasets.

    Returns
    -------
    models : tuple of str
    records : bool array, shape (n_records,)
        Those to keep.

    Raises
    ------
    TypeError, ValueError
        Naming what the table does not have; or if nothing is left.
    """
    for what, names, known in (
        ("models", models, table.models),
        ("datasets", datasets, table.datasets),
    ):
        if isinstance(names, str):
            raise TypeError(f"{what} must be a sequence of names, got the text {names!r}")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"unknown {what} {unknown}; the router has {list(known)}")
    dropped = set(records)
    mask = ~np.isin(table.dataset, [table.datasets.index(name) for name in datasets])
    if dropped:
        known_keys = keys(table)
        _refuse("the router does not have", sorted(dropped - set(known_keys)))
        mask &= np.array([key not in dropped for key in known_keys])
    left = tuple(name for name in table.models if name not in models)
    if not left or not mask.any():
        raise ValueError(f"nothing would be left: {len(left)} models, {mask.sum()} records")
    return left, mask


def keys(table: BenchmarkTable) -> list[Key]:
    """(dataset, sample_id) of every record."""
    names = [table.datasets[code] for code in table.dataset.tolist()]
    return list(zip(names, table.sample_ids, strict=True))


def repeated(table: BenchmarkTable) -> list[Key]:
    """Those (dataset, sample_id) that more than one record has."""
    return sorted(key for key, count in Counter(keys(table)).items() if count > 1)


def _rows_of(table: BenchmarkTable, results: BenchmarkTable) -> NDArray[np.int64]:
    """Number in `table` of every record of `results`."""
    _refuse("the router repeats", repeated(table))
    _refuse("the added table repeats", repeated(results))
    numbers = {key: i for i, key in enumerate(keys(table))}
    wanted = keys(results)
    _refuse("the router does not have", [key for key in wanted if key not in numbers])
    rows = np.array([numbers[key] for key in wanted], dtype=np.int64)
    differing = [
        key
        for key, row, prompt in zip(wanted, rows.tolist(), results.prompts, strict=True)
        if table.prompts[row] != prompt
    ]
    _refuse("the router has another prompt for", differing)
    return rows


def _refuse(complaint: str, found: Sequence[Key]) -> None:
    """Raise with the names of some records, if there are any."""
    if found:
        names = ", ".join(f"{dataset!r} {sample_id!r}" for dataset, sample_id in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise ValueError(f"{complaint} the records (dataset, sample_id) {names}{more}")


def _of_datasets(table: BenchmarkTable) -> dict[str, tuple[str, float]]:
    stated = zip(table.metrics, table.thresholds.tolist(), strict=True)
    return dict(zip(table.datasets, stated, strict=True))


def _codes(table: BenchmarkTable, datasets: Sequence[str]) -> NDArray[np.int32]:
    codes = np.array([datasets.index(name) for name in table.datasets], dtype=np.int32)
    return codes[table.dataset]


def _spread(matrix: NDArray[np.float32], columns: list[int], n_models: int) -> NDArray[np.float32]:
    spread = np.full((len(matrix), n_models), np.nan, np.float32)
    spread[:, columns] = matrix
    return spread


def _at(
    rows: NDArray[np.int64], values: NDArray[np.float32], n_records: int
) -> NDArray[np.float32]:
    column = np.full((n_records, 1), np.nan, np.float32)
    column[rows, 0] = values
    return column


def _joined_costs(table: BenchmarkTable, added: BenchmarkTable, columns: list[int]) -> Costs:
    if table.cost_usd is None and added.cost_usd is None:
        return None
    old = np.full(table.scores.shape, np.nan, np.float32)
    new = np.full(added.scores.shape, np.nan, np.float32)
    return np.concatenate(
        (
            old if table.cost_usd is None else table.cost_usd,
            _spread(new if added.cost_usd is None else added.cost_usd, columns, table.n_models),
        )
    )
