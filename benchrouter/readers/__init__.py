"""Readers: benchmark results in files and in memory → one BenchmarkTable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchrouter.readers.bad_rows import BadRows
from benchrouter.readers.files import open_source
from benchrouter.readers.formats import FORMATS, TABLE, check_name, format_of, routerbench
from benchrouter.readers.formats.choices import Choices
from benchrouter.readers.formats.helm_paper import PRESET as PAPER
from benchrouter.readers.formats.rows import Reading
from benchrouter.readers.in_memory import source_in_memory
from benchrouter.readers.long import read_long
from benchrouter.readers.merging.aliases import Aliases, Given, read_aliases
from benchrouter.readers.merging.merge import merge
from benchrouter.readers.merging.rows import AllRows
from benchrouter.readers.names import layout_of, long_columns, source_names, wanted_names
from benchrouter.readers.part import Part
from benchrouter.readers.presets import PRESETS, apply_preset, names_of_preset
from benchrouter.readers.sidecar import Sidecar, read_sidecar
from benchrouter.readers.source import Source
from benchrouter.readers.wide import read_wide
from benchrouter.table import BenchmarkTable

ON_ERROR = ("raise", "skip")
ALIGN = ("sample_id", "prompt")
ON_CONFLICT = ("error", "first", "mean")


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
    aliases: Given = None
    align: str = "sample_id"
    on_conflict: str = "error"

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}, expected 'raise' or 'skip'")
        for name, known in (("align", ALIGN), ("on_conflict", ON_CONFLICT)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        check_name(self.format)
        if self.columns_preset is not None and self.format not in ("auto", TABLE):
            preset, format = self.columns_preset, self.format
            raise ValueError(f"preset {preset!r} is for tables, but format is {format!r}")

    @property
    def columns_preset(self) -> str | None:
        """The preset, if it is one of columns."""
        return self.choices.preset if self.choices.preset in PRESETS else None

    def wanted(self) -> dict[str, str]:
        """Our names of columns to those that the caller named."""
        wanted = wanted_names(self.columns, self.dataset_column, self.prompt_column)
        if self.choices.metric is not None:
            wanted.setdefault("score", self.choices.metric)
        return wanted


def read_files(paths: Sequence[Path], options: ReadOptions) -> BenchmarkTable:
    """Read files and folders; see `BenchmarkTable.read`."""
    if not paths:
        raise ValueError("found no path, expected at least one file")
    aliases = read_aliases(options.aliases)
    # With the names that files have for them.
    named = replace(options, models=aliases.others(options.models))
    parts = (aliases.rename(part) for path in paths for part in _parts(path, named))
    return _merged(parts, options, aliases)


def read_in_memory(table: Any, options: ReadOptions) -> BenchmarkTable:
    """Read a table in memory; see `BenchmarkTable.from_arrow`."""
    named = set(options.wanted().values())
    if options.columns_preset is not None:
        named |= names_of_preset(options.columns_preset)
    source = source_in_memory(table, named)
    if options.columns_preset is None and routerbench.has_columns(source.columns):
        part = _part_of_reading(routerbench.reading_of(source, Sidecar()), options)
    else:
        part = _part_of_table(source, Sidecar(), options)
    return _merged([part], options, Aliases())


def _parts(path: Path, options: ReadOptions) -> Iterator[Part]:
    format = _format(path, options)
    if options.choices.preset == PAPER and format != "helm":
        raise ValueError(f"{path}: preset {PAPER!r} is for run folders of HELM, found a {format}")
    if format == TABLE:
        source = open_source(path, lambda columns: _needed(columns, path, options))
        yield _part_of_table(source, read_sidecar(path), options)
        return
    n_readings = 0
    for reading in FORMATS[format].read(path, _choices(options)):
        yield _part_of_reading(reading, options)
        n_readings += 1
    if n_readings == 0:
        raise ValueError(f"{path}: found no results of the format {format!r}")


def _format(path: Path, options: ReadOptions) -> str:
    if options.format != "auto":
        return options.format
    return TABLE if options.columns_preset is not None else format_of(path)


def _choices(options: ReadOptions) -> Choices:
    """The score's column, if the caller named one, is the metric of a format with several."""
    choices = options.choices
    if choices.metric is None and options.columns is not None:
        return replace(choices, metric=options.columns.get("score"))
    return choices


def _needed(columns: Collection[str], path: Path, options: ReadOptions) -> frozenset[str] | None:
    if options.columns_preset is not None:
        return None
    return long_columns(columns, options.layout, options.wanted(), read_sidecar(path))


def _part_of_table(source: Source, sidecar: Sidecar, options: ReadOptions) -> Part:
    wanted = options.wanted()
    if options.columns_preset is not None:
        source, wanted = apply_preset(options.columns_preset, source, wanted)
    # Before anything else: broken lines hide columns.
    bad = BadRows(source, options.on_error)
    if source.n_rows == 0:
        first = bad.messages()[0] if bad.messages() else "none was there"
        raise ValueError(f"{source.name}: found no readable row; the first: {first}")
    names = source_names(source, sidecar, wanted)
    if layout_of(options.layout, names, wanted, sidecar, source.columns) == "long":
        return read_long(source, sidecar, names, bad=bad)
    metric = wanted.get("score")
    return read_wide(source, sidecar, names, models=options.models, metric=metric, bad=bad)


def _part_of_reading(reading: Reading, options: ReadOptions) -> Part:
    bad = BadRows(reading.source, options.on_error)
    names = {name: name for name in reading.source.columns}
    source, sidecar = reading.source, reading.sidecar
    if reading.layout == "wide":
        part = read_wide(source, sidecar, names, models=options.models, bad=bad)
    else:
        part = read_long(source, sidecar, names, bad=bad)
    return replace(part, notes=reading.notes)


def _merged(parts: Iterable[Part], options: ReadOptions, aliases: Aliases) -> BenchmarkTable:
    rows = AllRows(parts, by_prompt=options.align == "prompt")
    there = {model for part in rows.parts for model in part.models}
    unknown = [model for model in options.models or () if model not in there]
    if unknown:
        known = list(dict.fromkeys(model for part in rows.parts for model in part.known_models))
        raise ValueError(f"unknown models {unknown}; the input has {known}")
    return merge(
        rows,
        align=options.align,
        on_conflict=options.on_conflict,
        thresholds=options.thresholds,
        notes=aliases.unmet(),
    )
