"""Readers: benchmark results in files and in memory → one BenchmarkTable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchrouter.tables.formats import FORMATS, TABLE, format_of, routerbench
from benchrouter.tables.formats.long_rows import Reading
from benchrouter.tables.layouts.long import read_long
from benchrouter.tables.layouts.names import (
    OURS,
    TEXTS,
    has_metric,
    layout_of,
    long_columns,
    metrics_of,
    source_names,
)
from benchrouter.tables.layouts.part import Part
from benchrouter.tables.layouts.presets import apply_preset, is_long_preset, names_of_preset
from benchrouter.tables.layouts.sidecar import Sidecar, read_sidecar
from benchrouter.tables.layouts.wide import read_wide
from benchrouter.tables.merging.aliases import Aliases, read_aliases
from benchrouter.tables.merging.all_rows import AllRows
from benchrouter.tables.merging.merge import merge
from benchrouter.tables.read_options import ReadOptions, check_fit
from benchrouter.tables.sources.bad_rows import BadRows
from benchrouter.tables.sources.in_memory import source_in_memory
from benchrouter.tables.sources.open import SUFFIXES, open_source
from benchrouter.tables.sources.source import Source
from benchrouter.tables.table import BenchmarkTable


def read_files(paths: Sequence[Path], options: ReadOptions) -> BenchmarkTable:
    """Read files and folders; see `BenchmarkTable.read`."""
    if not paths:
        raise ValueError("found no path, expected at least one file")
    formats = [_format(path, options) for path in paths]
    check_fit(options, formats)
    aliases = read_aliases(options.aliases)
    # With the names that files have for them.
    named = replace(options, models=aliases.others(options.models))
    parts = (
        aliases.rename(part)
        for path, format in zip(paths, formats, strict=True)
        for part in _parts(path, format, named)
    )
    return _merged(parts, options, aliases)


def read_in_memory(table: Any, options: ReadOptions) -> BenchmarkTable:
    """Read a table in memory; see `BenchmarkTable.from_arrow`."""
    named = set(options.wanted().values())
    if options.columns_preset is not None:
        named |= names_of_preset(options.columns_preset)
    source = source_in_memory(table, named, {options.wanted().get(name, name) for name in TEXTS})
    of_routerbench = options.columns_preset is None and routerbench.has_columns(source.columns)
    check_fit(options, ["routerbench" if of_routerbench else TABLE])
    if of_routerbench:
        part = _part_of_reading(routerbench.reading_of(source, Sidecar()), options)
    else:
        part = _part_of_table(source, Sidecar(), options)
    return _merged([part], options, Aliases())


def _format(path: Path, options: ReadOptions) -> str:
    if options.format != "auto":
        return options.format
    if options.columns_preset is not None and path.name.lower().endswith(SUFFIXES):
        return TABLE
    return format_of(path)


def _parts(path: Path, format: str, options: ReadOptions) -> Iterator[Part]:
    if format == TABLE:
        source = open_source(path, lambda columns: _needed(columns, path, options))
        yield _part_of_table(source, read_sidecar(path), options)
        return
    n_readings = 0
    for reading in FORMATS[format].read(path, replace(options, metric=options.score)):
        yield _part_of_reading(reading, options)
        n_readings += 1
    if n_readings == 0:
        raise ValueError(f"{path}: found no results of the format {format!r}")


def _needed(columns: Collection[str], path: Path, options: ReadOptions) -> frozenset[str] | None:
    wanted = options.wanted()
    if options.columns_preset is None:
        return long_columns(columns, options.layout, wanted, read_sidecar(path))
    if not is_long_preset(options.columns_preset) or options.layout == "wide":
        return None
    return frozenset({*OURS, *names_of_preset(options.columns_preset), *wanted.values()})


def _part_of_table(source: Source, sidecar: Sidecar, options: ReadOptions) -> Part:
    wanted = options.wanted()
    lacks = options.only_metric and not has_metric(source, wanted.get("score"))
    if lacks:
        del wanted["score"]
    if options.columns_preset is not None:
        source, wanted = apply_preset(options.columns_preset, source, wanted)
    # Before anything else: broken lines hide columns.
    bad = BadRows(source, options.on_error)
    if source.n_rows == 0:
        first = bad.messages()[0] if bad.messages() else "none was there"
        raise ValueError(f"{source.name}: found no readable row; the first: {first}")
    names = source_names(source, sidecar, wanted)
    if layout_of(options.layout, names, wanted, sidecar, source.columns) == "long":
        part = read_long(source, sidecar, names, bad=bad)
    else:
        metric = wanted.get("score")
        part = read_wide(source, sidecar, names, models=options.models, metric=metric, bad=bad)
    return _without_scores(part, metrics_of(source)) if lacks else part


def _part_of_reading(reading: Reading, options: ReadOptions) -> Part:
    bad = BadRows(reading.source, options.on_error)
    names = {name: name for name in reading.source.columns}
    source, sidecar = reading.source, reading.sidecar
    if reading.layout == "wide":
        part = read_wide(source, sidecar, names, models=options.models, bad=bad)
    else:
        part = read_long(source, sidecar, names, bad=bad)
    if options.only_metric and reading.lacks is not None:
        part = _without_scores(part, reading.lacks)
    return replace(part, notes=reading.notes, lacks=reading.lacks)


def _without_scores(part: Part, metrics: tuple[str, ...]) -> Part:
    """Take the scores out of a part that lacks the only metric to take."""
    return replace(
        part,
        scores=np.full_like(part.scores, np.nan),
        sidecar=replace(part.sidecar, metric="", metrics={}, thresholds={}),
        lacks=metrics,
    )


def _check_metric(parts: Sequence[Part], metric: str | None) -> None:
    """Refuse a metric that no part has."""
    if metric is None or any(part.lacks is None for part in parts):
        return
    found = dict.fromkeys(name for part in parts for name in part.lacks or ())
    more = f" and {len(parts) - 1:,} more" if len(parts) > 1 else ""
    raise ValueError(
        f"{parts[0].name}{more}: found no metric {metric!r}, but {', '.join(found) or 'none'}"
    )


def _merged(parts: Iterable[Part], options: ReadOptions, aliases: Aliases) -> BenchmarkTable:
    rows = AllRows(parts, by_prompt=options.align == "prompt")
    _check_metric(rows.parts, options.score)
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
