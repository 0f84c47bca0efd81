"""Readers: benchmark results in files and in memory → one BenchmarkTable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchrouter.readers.bad_rows import BadRows
from benchrouter.readers.files import open_source, source_of_arrow
from benchrouter.readers.formats import FORMATS, TABLE, check_name, format_of
from benchrouter.readers.formats.choices import Choices
from benchrouter.readers.formats.rows import Reading
from benchrouter.readers.long import read_long
from benchrouter.readers.merge import merge
from benchrouter.readers.names import layout_of, long_columns, source_names, wanted_names
from benchrouter.readers.part import Part
from benchrouter.readers.sidecar import Sidecar, read_sidecar
from benchrouter.readers.source import Source
from benchrouter.readers.wide import read_wide
from benchrouter.table import BenchmarkTable

if TYPE_CHECKING:
    import pyarrow as pa

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """How results are read; see `BenchmarkTable.read`."""

    layout: str = "auto"
    columns: Mapping[str, str] | None = None
    dataset_column: str | None = None
    prompt_column: str | None = None
    models: Sequence[str] | None = None
    thresholds: Mapping[str, float | None] | None = None
    on_error: str = "raise"
    format: str = "auto"
    choices: Choices = field(default_factory=Choices)

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}, expected 'raise' or 'skip'")
        check_name(self.format)

    def wanted(self) -> dict[str, str]:
        """Our names of columns to those that the caller named."""
        return wanted_names(self.columns, self.dataset_column, self.prompt_column)


def read_files(paths: Sequence[Path], options: ReadOptions) -> BenchmarkTable:
    """Read files and folders; see `BenchmarkTable.read`."""
    if not paths:
        raise ValueError("found no path, expected at least one file")
    return _merged([part for path in paths for part in _parts(path, options)], options)


def read_arrow(table: pa.Table, options: ReadOptions) -> BenchmarkTable:
    """Read a pyarrow table in memory; see `BenchmarkTable.from_arrow`."""
    return _merged([_part_of_table(source_of_arrow(table), Sidecar(), options)], options)


def _parts(path: Path, options: ReadOptions) -> list[Part]:
    format = format_of(path) if options.format == "auto" else options.format
    if format == TABLE:
        source = open_source(path, lambda columns: _needed(columns, path, options))
        return [_part_of_table(source, read_sidecar(path), options)]
    readings = FORMATS[format].read(path, options.choices)
    if not readings:
        raise ValueError(f"{path}: found no results of the format {format!r}")
    return [_part_of_reading(reading, options) for reading in readings]


def _needed(columns: Collection[str], path: Path, options: ReadOptions) -> frozenset[str] | None:
    return long_columns(columns, options.layout, options.wanted(), read_sidecar(path))


def _part_of_table(source: Source, sidecar: Sidecar, options: ReadOptions) -> Part:
    wanted = options.wanted()
    bad = _bad_rows(source, options)
    names = source_names(source, sidecar, wanted)
    if layout_of(options.layout, names, wanted, sidecar, source.columns) == "long":
        return read_long(source, sidecar, names, bad=bad)
    metric = wanted.get("score")
    return read_wide(source, sidecar, names, models=options.models, metric=metric, bad=bad)


def _part_of_reading(reading: Reading, options: ReadOptions) -> Part:
    bad = _bad_rows(reading.source, options)
    names = {name: name for name in reading.source.columns}
    return read_long(reading.source, reading.sidecar, names, bad=bad)


def _bad_rows(source: Source, options: ReadOptions) -> BadRows:
    # Before anything else: broken lines hide columns.
    bad = BadRows(source, options.on_error)
    if source.n_rows == 0:
        first = bad.messages()[0] if bad.messages() else "none was there"
        raise ValueError(f"{source.name}: found no readable row; the first: {first}")
    return bad


def _merged(parts: Sequence[Part], options: ReadOptions) -> BenchmarkTable:
    there = {model for part in parts for model in part.models}
    unknown = [model for model in options.models or () if model not in there]
    if unknown:
        known = list(dict.fromkeys(model for part in parts for model in part.known_models))
        raise ValueError(f"unknown models {unknown}; the input has {known}")
    return merge(parts, options.thresholds)
