"""Readers: benchmark results in files and in memory → one BenchmarkTable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchrouter.readers.bad_rows import BadRows
from benchrouter.readers.files import open_source
from benchrouter.readers.formats import FORMATS, TABLE, check_name, format_of, routerbench
from benchrouter.readers.formats.choices import Choices
from benchrouter.readers.formats.rows import Reading
from benchrouter.readers.in_memory import source_in_memory
from benchrouter.readers.long import read_long
from benchrouter.readers.merge import merge
from benchrouter.readers.names import layout_of, source_names, wanted_names
from benchrouter.readers.part import Part
from benchrouter.readers.presets import apply_preset, check_preset, names_of_preset
from benchrouter.readers.sidecar import Sidecar, read_sidecar
from benchrouter.readers.source import Source
from benchrouter.readers.wide import read_wide
from benchrouter.table import BenchmarkTable

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
    preset: str | None = None
    choices: Choices = field(default_factory=Choices)

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}, expected 'raise' or 'skip'")
        check_name(self.format)
        check_preset(self.preset)
        if self.preset is not None and self.format not in ("auto", TABLE):
            raise ValueError(f"preset {self.preset!r} is for tables, but format is {self.format!r}")

    def wanted(self) -> dict[str, str]:
        """Our names of columns to those that the caller named."""
        return wanted_names(self.columns, self.dataset_column, self.prompt_column)


def read_files(paths: Sequence[Path], options: ReadOptions) -> BenchmarkTable:
    """Read files and folders; see `BenchmarkTable.read`."""
    if not paths:
        raise ValueError("found no path, expected at least one file")
    return _merged([part for path in paths for part in _parts(path, options)], options)


def read_in_memory(table: Any, options: ReadOptions) -> BenchmarkTable:
    """Read a table in memory; see `BenchmarkTable.from_arrow`."""
    named = set(options.wanted().values())
    if options.preset is not None:
        named |= names_of_preset(options.preset)
    source = source_in_memory(table, named)
    if options.preset is None and routerbench.has_columns(source.columns):
        part = _part_of_reading(routerbench.reading_of(source, Sidecar()), options)
    else:
        part = _part_of_table(source, Sidecar(), options)
    return _merged([part], options)


def _parts(path: Path, options: ReadOptions) -> list[Part]:
    format = _format(path, options)
    if format == TABLE:
        return [_part_of_table(open_source(path), read_sidecar(path), options)]
    readings = FORMATS[format].read(path, _choices(options))
    if not readings:
        raise ValueError(f"{path}: found no results of the format {format!r}")
    return [_part_of_reading(reading, options) for reading in readings]


def _format(path: Path, options: ReadOptions) -> str:
    if options.format != "auto":
        return options.format
    return TABLE if options.preset is not None else format_of(path)


def _choices(options: ReadOptions) -> Choices:
    """The score's column, if the caller named one, is the metric of a format with several."""
    choices = options.choices
    if choices.metric is None and options.columns is not None:
        return replace(choices, metric=options.columns.get("score"))
    return choices


def _part_of_table(source: Source, sidecar: Sidecar, options: ReadOptions) -> Part:
    wanted = options.wanted()
    if options.preset is not None:
        source, wanted = apply_preset(options.preset, source, wanted)
    bad = _bad_rows(source, options)
    names = source_names(source, sidecar, wanted)
    if layout_of(options.layout, names, wanted, sidecar, source) == "long":
        return read_long(source, sidecar, names, bad=bad)
    metric = wanted.get("score")
    return read_wide(source, sidecar, names, models=options.models, metric=metric, bad=bad)


def _part_of_reading(reading: Reading, options: ReadOptions) -> Part:
    bad = _bad_rows(reading.source, options)
    names = {name: name for name in reading.source.columns}
    if reading.layout == "wide":
        return read_wide(reading.source, reading.sidecar, names, models=options.models, bad=bad)
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
