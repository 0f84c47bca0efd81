"""A table as a wide file, with the sidecar that tells what columns cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.os_errors import naming
from benchrouter.tables.layouts.names import OF_MODEL
from benchrouter.tables.layouts.sidecar import (
    PRICES,
    belonging_to,
    belongs,
    is_sidecar,
    sidecar_path,
)
from benchrouter.tables.layouts.wide import COST, LOG_LIKELIHOOD
from benchrouter.tables.sources.open import SUFFIXES as READ_SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

    from benchrouter.tables.table import BenchmarkTable

KEYS = ("dataset", "sample_id", "prompt")
SUFFIXES = (".parquet", ".csv", ".jsonl")
BATCH_ROWS = 65_536


def write_table(
    table: BenchmarkTable,
    path: str | os.PathLike[str],
    *,
    metrics: Mapping[str, BenchmarkTable] | None = None,
) -> None:
    """Write a wide table and its sidecar; reading it gives an equal table.

    Parameters
    ----------
    table : BenchmarkTable
    path : path
        ``.parquet``, ``.csv`` or ``.jsonl``; the sidecar is ``.json`` in its place.
    metrics : dict of str to BenchmarkTable
        Further metrics of the same records and models, by name: their scores become the columns
        ``metric::<model>``, which ``read_table(path, metric=name)`` takes.

    Raises
    ------
    ValueError
        If the suffix is another, a name or key cannot stand in a wide table, or a table of
        `metrics` has other records or models.
    """
    path, metrics = Path(path), metrics or {}
    suffix = check_target(path)
    _check_writable(table)
    for name, other in metrics.items():
        _check_metric(name, other, table)
    columns = _columns(table, metrics)
    partial = partial_of(path)
    try:
        with naming(path):
            _write(columns, suffix, partial)
        told = _sidecar(table) | belonging_to(suffix, partial.stat().st_size)
        text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
        # The sidecar first: without a table it is nothing, a table without it is another. Between
        # the two renames an earlier table is told by its size to be none of the new sidecar's.
        sidecar = sidecar_path(path)
        partial_sidecar = partial_of(sidecar)
        try:
            with naming(sidecar):
                partial_sidecar.write_bytes(text.encode() + b"\n")
                put_file(partial_sidecar, sidecar)
        finally:
            partial_sidecar.unlink(missing_ok=True)
        put_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_target(path: Path, sources: Sequence[Path] = ()) -> str:
    """Refuse a place where no table and sidecar can be written without harm.

    Parameters
    ----------
    path : Path
        Of the table.
    sources : sequence of Path
        Files and folders that are being read.

    Returns
    -------
    str
        Its suffix.

    Raises
    ------
    ValueError
        If the suffix is none of `SUFFIXES`, the table or its sidecar would be written over a
        source or over a file in one that is no table of ours, or the sidecar over another JSON
        file or over the sidecar of another table.
    FileNotFoundError, IsADirectoryError, PermissionError
        If its folder is not there or cannot be written to, or it is a folder itself.
    """
    name = path.name.lower()
    known = sorted(READ_SUFFIXES, key=len, reverse=True)
    suffix = next((end for end in known if name.endswith(end)), path.suffix.lower())
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: found suffix {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory, expected a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no directory {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path}: the directory {str(path.parent)!r} cannot be written to")
    for source in sources:
        _check_beside(path, source)
    _check_sidecar(path, suffix)
    return suffix


def _check_beside(path: Path, source: Path) -> None:
    """Refuse to write over a source."""
    sidecar = sidecar_path(path)
    for written in (path, sidecar):
        if written.resolve() == source.resolve():
            raise ValueError(f"{written}: is a source, and would be written over")
    if path.exists() and not sidecar.exists() and source.resolve() in path.resolve().parents:
        raise ValueError(f"{path}: is in a source, and would be written over")


def _check_sidecar(path: Path, suffix: str) -> None:
    """Refuse to write over JSON that is not this table's sidecar."""
    sidecar = sidecar_path(path)
    if not sidecar.exists():
        return
    if not is_sidecar(sidecar):
        raise ValueError(f"{sidecar}: is no sidecar of a table, and would be written over")
    others = [path.with_name(path.name[: -len(suffix)] + end) for end in READ_SUFFIXES]
    other = next((o for o in others if o != path and o.is_file()), None)
    if other is not None and not path.exists() and belongs(sidecar, other):
        raise ValueError(f"{sidecar}: is the sidecar of {other}, and would be written over")


def _write(columns: pa.Table, suffix: str, path: Path) -> None:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(columns, path)
    elif suffix == ".csv":
        import pyarrow.csv as arrow_csv

        arrow_csv.write_csv(columns, path)
    else:
        _write_jsonl(columns, path)


def _check_writable(table: BenchmarkTable) -> None:
    for model in table.models:
        if model in KEYS or model.startswith((COST, LOG_LIKELIHOOD)):
            raise ValueError(f"model {model!r} cannot be written: a wide file has that column")
    keys = set(zip(table.dataset.tolist(), table.sample_ids, strict=True))
    if len(keys) != table.n_records:
        raise ValueError(
            f"{table.n_records} records have {len(keys)} distinct (dataset, sample_id), "
            "expected as many"
        )


def _check_metric(name: str, other: BenchmarkTable, table: BenchmarkTable) -> None:
    if not name or OF_MODEL in name or name + OF_MODEL in (COST, LOG_LIKELIHOOD):
        raise ValueError(f"metric {name!r} cannot be written: a column is named METRIC::MODEL")
    for what in ("models", "datasets", "sample_ids", "prompts"):
        if getattr(other, what) != getattr(table, what):
            raise ValueError(f"metric {name!r} has other {what}, or in another order")
    if not np.array_equal(other.dataset, table.dataset):
        raise ValueError(f"metric {name!r} has records of other datasets")


def _columns(table: BenchmarkTable, metrics: Mapping[str, BenchmarkTable]) -> pa.Table:
    import pyarrow as pa

    columns = {
        "dataset": pa.array([table.datasets[i] for i in table.dataset], pa.large_string()),
        "sample_id": pa.array(table.sample_ids, pa.large_string()),
        "prompt": pa.array(table.prompts, pa.large_string()),
    }
    further = [(name + OF_MODEL, other.scores) for name, other in metrics.items()]
    for prefix, matrix in _matrices(table) + further:
        for j, model in enumerate(table.models):
            columns[prefix + model] = pa.array(np.ascontiguousarray(matrix[:, j]), from_pandas=True)
    return pa.table(columns)


def _matrices(table: BenchmarkTable) -> list[tuple[str, NDArray[np.float32]]]:
    matrices = [("", table.scores), (COST, table.cost_usd), (LOG_LIKELIHOOD, table.log_likelihood)]
    return [(prefix, matrix) for prefix, matrix in matrices if matrix is not None]


def _write_jsonl(columns: pa.Table, path: Path) -> None:
    with open(path, "wb") as file:
        for batch in columns.to_batches(max_chunksize=BATCH_ROWS):
            for row in batch.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _sidecar(table: BenchmarkTable) -> dict[str, Any]:
    def announced(prefix: str, matrix: object) -> list[str]:
        return [] if matrix is None else [prefix + model for model in table.models]

    return {
        "layout": "wide",
        "key_columns": ["dataset", "sample_id"],
        "prompt_column": "prompt",
        "model_columns": list(table.models),
        "cost_columns": announced(COST, table.cost_usd),
        "log_likelihood_columns": announced(LOG_LIKELIHOOD, table.log_likelihood),
        "model_params_billion": {
            model: _or_null(table.params_b[i]) for i, model in enumerate(table.models)
        },
        PRICES: {
            model: [_or_null(price) for price in table.prices[i]]
            for i, model in enumerate(table.models)
        },
        "metrics": dict(zip(table.datasets, table.metrics, strict=True)),
        "thresholds": {
            name: _or_null(table.thresholds[i]) for i, name in enumerate(table.datasets)
        },
    }


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
