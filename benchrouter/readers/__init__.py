"""Readers: benchmark results in files and in memory → one BenchmarkTable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchrouter.readers.bad_rows import BadRows
from benchrouter.readers.files import open_source, source_of_arrow
from benchrouter.readers.long import read_long
from benchrouter.readers.merge import merge
from benchrouter.readers.names import layout_of, source_names, wanted_names
from benchrouter.readers.part import Part
from benchrouter.readers.sidecar import Sidecar, read_sidecar
from benchrouter.readers.source import Source
from benchrouter.readers.wide import read_wide
from benchrouter.table import BenchmarkTable

if TYPE_CHECKING:
    import pyarrow as pa

ON_ERROR = ("raise", "skip")


def read_files(
    paths: Sequence[Path],
    *,
    layout: str,
    columns: Mapping[str, str] | None,
    dataset_column: str | None,
    prompt_column: str | None,
    models: Sequence[str] | None,
    thresholds: Mapping[str, float | None] | None,
    on_error: str,
) -> BenchmarkTable:
    """Read files, each with the sidecar that lies beside it; see `BenchmarkTable.read`."""
    _check_on_error(on_error)
    wanted = wanted_names(columns, dataset_column, prompt_column)
    if not paths:
        raise ValueError("found no path, expected at least one file")
    parts = [
        _part(open_source(path), read_sidecar(path), wanted, layout, models, on_error)
        for path in paths
    ]
    _check_models(parts, models)
    return merge(parts, thresholds)


def read_arrow(
    table: pa.Table,
    *,
    layout: str,
    columns: Mapping[str, str] | None,
    dataset_column: str | None,
    prompt_column: str | None,
    models: Sequence[str] | None,
    thresholds: Mapping[str, float | None] | None,
    on_error: str,
) -> BenchmarkTable:
    """Read a pyarrow table in memory; see `BenchmarkTable.from_arrow`."""
    _check_on_error(on_error)
    wanted = wanted_names(columns, dataset_column, prompt_column)
    parts = [_part(source_of_arrow(table), Sidecar(), wanted, layout, models, on_error)]
    _check_models(parts, models)
    return merge(parts, thresholds)


def _part(
    source: Source,
    sidecar: Sidecar,
    wanted: Mapping[str, str],
    layout: str,
    models: Sequence[str] | None,
    on_error: str,
) -> Part:
    # Before anything else: broken lines hide columns.
    bad = BadRows(source, on_error)
    if source.n_rows == 0:
        raise ValueError(f"{source.name}: found no readable row; the first: {bad.messages()[0]}")
    names = source_names(source, sidecar, wanted)
    if layout_of(layout, names, wanted, sidecar, source) == "long":
        return read_long(source, sidecar, names, bad=bad)
    return read_wide(source, sidecar, names, models=models, metric=wanted.get("score"), bad=bad)


def _check_models(parts: Sequence[Part], models: Sequence[str] | None) -> None:
    there = {model for part in parts for model in part.models}
    unknown = [model for model in models or () if model not in there]
    if unknown:
        known = list(dict.fromkeys(model for part in parts for model in part.known_models))
        raise ValueError(f"unknown models {unknown}; the input has {known}")


def _check_on_error(on_error: str) -> None:
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
