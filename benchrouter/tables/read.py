"""Benchmark results, in files and in memory → one `BenchmarkTable`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchrouter.files.opened import opened_once
from benchrouter.tables.formats import FORMATS, TABLE, format_of, routerbench
from benchrouter.tables.formats.long_rows import FormatReading
from benchrouter.tables.layouts.long import read_long
from benchrouter.tables.layouts.names import (
    OF_MODEL,
    OURS,
    TEXTS,
    has_metric,
    layout_of,
    long_columns,
    metric_models,
    metrics_of,
    source_names,
)
from benchrouter.tables.layouts.part import Part
from benchrouter.tables.layouts.presets import apply_preset, is_long_preset, names_of_preset
from benchrouter.tables.layouts.sidecar import Sidecar, read_sidecar
from benchrouter.tables.layouts.wide import COST, LOG_LIKELIHOOD, read_wide
from benchrouter.tables.merging.aliases import Aliases, read_aliases
from benchrouter.tables.merging.all_rows import AllRows
from benchrouter.tables.merging.merge import merge
from benchrouter.tables.read_options import (
    ReadKeywords,
    ReadOptions,
    TableKeywords,
    check_fit,
    of_metric,
)
from benchrouter.tables.sources.bad_rows import BadRows
from benchrouter.tables.sources.in_memory import source_in_memory
from benchrouter.tables.sources.open import SUFFIXES, open_source
from benchrouter.tables.sources.source import Source
from benchrouter.tables.table import BenchmarkTable

if TYPE_CHECKING:
    from typing_extensions import Unpack


def read_table(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    **options: Unpack[ReadKeywords],
) -> BenchmarkTable:
    """Read benchmark results, in tables or in other people's formats, and merge them.

    A *wide* table has a row per record (dataset, sample_id, prompt) and a column per model, with
    ``cost::<model>`` and ``log_likelihood::<model>`` where known. Any other column
    ``metric::<model>`` is a further metric of that model. A *long* table has a row per model and
    record (model, dataset, sample_id, prompt, score[, cost_usd, log_likelihood]).

    ``FILE.json`` beside ``FILE.parquet`` is its sidecar: ``model_columns``, ``key_columns``
    (dataset, sample_id), ``prompt_column``, ``model_params_billion``,
    ``model_price_usd_per_million_tokens``, ``metrics``, ``thresholds``. Without it, the numeric
    columns of a wide table are its models. Without a dataset column, the file's stem is the
    dataset; without a sample_id (wide only), the row's number from 1.

    Every file is opened once. `BenchmarkTable.origin` records what was met on the way.

    Parameters
    ----------
    paths : path or sequence of paths
        ``.parquet``, ``.csv``, ``.jsonl``; the latter two also with ``.gz`` or ``.zst``; or files
        and folders of another format.
    layout : str
        "wide", "long" or "auto": what the sidecar says, else long if there are columns for the
        model and the score.
    columns : dict of str to str
        Our names (dataset, sample_id, prompt, model, score, cost_usd, log_likelihood) to the names
        in tables. The score may be a further metric of a wide table, to which the sidecar's
        thresholds do not apply. Other formats have their own columns; there the score's name is
        that of a metric.
    dataset_column, prompt_column : str
        Short for ``columns={"dataset": …, "prompt": …}``.
    models : sequence of str
        Only these, in this order; of a wide table, only their columns are read.
    datasets, max_params, min_records, complete
        As in `BenchmarkTable.select`.
    thresholds : dict of str to float
        Scores above it are correct, per dataset; "*" for all others, None for no threshold. By
        default the sidecar's, else 0.5 for datasets whose scores all lie in [0, 1], else none.
    on_error : str
        "raise", or "skip" to leave out what cannot be read and list it in ``skipped``: the record
        of a wide table, the row of a long one; all but the first of duplicates; of a folder also
        files, runs and folders that are broken or may not be read.
    preset : str
        "helm-paper": only HELM runs of the 29 datasets and 18 models of arXiv 2309.15789, with
        their numbers of parameters. "embedllm", "routellm": names of the columns in published
        tables; `columns` wins.
    format : str
        "auto" recognises each path; "table" is one of the above; else a name of
        `benchrouter.tables.formats.FORMATS`.
    metric : str
        The score to take where there are several; by default, of HELM, the main metric of the
        run's groups. Where a dataset of lm-eval or every-eval-ever lacks it, the format's own
        choice is taken; of other formats that is an error. Of tables, short for
        ``columns={"score": …}``, which wins.
    only_metric : bool
        Scores are missing where a source lacks `metric`, whatever its format.
    filter : str
        lm-eval: filter of the answers; by default the first that has the metric.
    prompt : str
        "request": what was sent to the models, with its few-shot examples; "instance": the
        record's own text. HELM: the latter by default; so of lm-eval, where the task's template is
        simple.
    split : str
        HELM: only instances of this split; by default all that were evaluated.
    train_trials : str
        HELM runs with several choices of few-shot examples: the "mean" of their scores and
        log-likelihoods, or those of the "first".
    perturbations : str
        HELM: "original" leaves perturbed instances out, "all" makes each a record of its own.
    shots : int
        lm-eval: only runs with so many few-shot examples.
    runs : str
        lm-eval, where a model has several runs of a task: "alike" takes the latest, but refuses
        runs with other few-shot examples, documents, versions or chat templates; "latest" takes
        the latest of any.
    groups : bool
        lm-eval: the outermost group of a task is its dataset, ``<task>/<doc_id>`` the sample.
    align : str
        Rows of one dataset are one record if they have the same "sample_id", or exactly the same
        "prompt", within a source as well. Records with equal prompts keep the sample_id read
        first; if another prompt of the dataset has it already, "#2", "#3", … follows it.
        ``source_rows`` then count the rows of all sources in turn.
    aliases : dict of str to str or sequence of str, or path
        Name of a model to other names that sources have for it; or a text file of lines
        ``name = other name, another name``, blanks around ``=``; ``#`` begins a comment. `models`
        and messages use the first name.
    on_conflict : str
        What is done about different values for one record and model: "error" shows both, or leaves
        out the later row with on_error="skip"; "first" keeps the first; "mean" takes the mean of
        all sources that have one. Of different prompts for one sample_id and different statements
        of sidecars, "first" and "mean" both keep the first. Equal values count once.

    Returns
    -------
    BenchmarkTable
        Records in the order of the files.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    TypeError
        If `paths` is a table in memory, or an option is unknown.
    ValueError
        Names file, row (data rows from 1; for CSV and JSONL also the line) and found value. Also
        for an option that no source's format has, and a metric that no source has.
    """
    return read_with_metrics(paths, {}, **options)[0]


def read_with_metrics(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    further: Mapping[str, str],
    **options: Unpack[ReadKeywords],
) -> tuple[BenchmarkTable, dict[str, BenchmarkTable]]:
    """Read benchmark results, and further metrics of them in the same pass.

    Parameters
    ----------
    paths, **options
        As in `read_table`.
    further : dict of str to str
        Names of further metrics to what the sources call them.

    Returns
    -------
    table : BenchmarkTable
        What `read_table` returns.
    further : dict of str to BenchmarkTable
        By name, the metric as the scores of all records read, without thresholds; missing where a
        source lacks it.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As in `read_table`.
    """
    if hasattr(paths, "__arrow_c_stream__"):
        raise TypeError(
            f"paths must be files or folders, got a {type(paths).__name__}: tables in memory "
            "are read by table_from_arrow"
        )
    files = [paths] if isinstance(paths, str | os.PathLike) else paths
    with opened_once():
        return _read_files([Path(path) for path in files], ReadOptions(**options), further)


def table_from_arrow(table: Any, **options: Unpack[TableKeywords]) -> BenchmarkTable:
    """Read a table in memory, of pandas, polars, pyarrow or Hugging Face datasets.

    Parameters
    ----------
    table : object
        Wide or long; without a dataset column, its dataset is called "table". Whatever hands out
        Arrow data (``__arrow_c_stream__``: pandas and polars data frames, pyarrow tables, record
        batches and readers), a pyarrow dataset, or one split of a Hugging Face dataset. Levels of
        a pandas index are columns if they have one of our names or of those named here; a column
        of objects of several kinds is read as in JSONL. RouterBench's columns are recognised.
    layout, columns, dataset_column, prompt_column, models, datasets, max_params, min_records, \
complete, thresholds, on_error, preset
        As in `read_table`.

    Returns
    -------
    BenchmarkTable
        Records in the order of the table.

    Raises
    ------
    TypeError
        If `table` is no table, or several of them, or an option is unknown.
    ValueError
        Names row and found value.
    """
    unknown = sorted(options.keys() - TableKeywords.__annotations__.keys())
    if unknown:
        raise TypeError(f"table_from_arrow has no option {unknown[0]!r}")
    given = ReadOptions(**options)
    named = set(given.wanted().values())
    if given.columns_preset is not None:
        named |= names_of_preset(given.columns_preset)
    source = source_in_memory(table, named, {given.wanted().get(name, name) for name in TEXTS})
    of_routerbench = given.columns_preset is None and routerbench.has_columns(source.columns)
    format = "routerbench" if of_routerbench else TABLE
    check_fit(given, [format])
    rows = AllRows()
    if of_routerbench:
        rows.add(_part_of_reading(routerbench.reading_of(source, Sidecar()), format, given))
    else:
        rows.add(_part_of_table(source, Sidecar(), given))
    return _selected(_merged(rows, given, Aliases()), given)


def _selected(table: BenchmarkTable, options: ReadOptions) -> BenchmarkTable:
    return table.select(
        models=options.models,
        datasets=options.datasets,
        max_params=options.max_params,
        min_records=options.min_records,
        complete=options.complete,
    )


def _read_files(
    paths: Sequence[Path], options: ReadOptions, further: Mapping[str, str]
) -> tuple[BenchmarkTable, dict[str, BenchmarkTable]]:
    if not paths:
        raise ValueError("found no path, expected at least one file")
    formats = [_format(path, options) for path in paths]
    # The score, then each further metric: all are taken from a source while it is open.
    each = [options, *(of_metric(options, metric) for metric in further.values())]
    for one in each:
        check_fit(one, formats)
    aliases = read_aliases(options.aliases)
    in_sources = [replace(one, models=aliases.others(one.models)) for one in each]
    rows = [AllRows(by_prompt=options.align == "prompt") for _ in each]
    for path, format in zip(paths, formats, strict=True):
        for parts in _parts(path, format, in_sources):
            for of_one, part in zip(rows, parts, strict=True):
                if part is not None:
                    of_one.add(aliases.rename(part))
    table = _selected(_merged(rows[0], options, aliases), options)
    return table, {
        name: _merged(of_one, replace(one, models=None), aliases)
        for name, one, of_one in zip(further, each[1:], rows[1:], strict=True)
    }


def _format(path: Path, options: ReadOptions) -> str:
    if options.format != "auto":
        return options.format
    if options.columns_preset is not None and path.name.lower().endswith(SUFFIXES):
        return TABLE
    return format_of(path)


def _parts(path: Path, format: str, each: Sequence[ReadOptions]) -> Iterator[Sequence[Part | None]]:
    """Parts of a source, each of them read by all the options."""
    if format == TABLE:

        @cache
        def sidecar() -> Sidecar:
            return read_sidecar(path)

        source = open_source(path, lambda columns: _needed(columns, sidecar(), each))
        yield [_part_of_table(source, sidecar(), options) for options in each]
        return
    n_readings = 0
    readings = (FORMATS[format].read(path, replace(one, metric=one.score)) for one in each)
    # In step, so that a file is still open when it is read again.
    for found in zip_longest(*readings):
        yield [
            None if reading is None else _part_of_reading(reading, format, options)
            for reading, options in zip(found, each, strict=True)
        ]
        n_readings += 1
    if n_readings == 0:
        raise ValueError(f"{path}: found no results of the format {format!r}")


def _needed(
    columns: Collection[str], sidecar: Sidecar, each: Sequence[ReadOptions]
) -> frozenset[str] | None:
    """Columns that are read of a long table, by all the options; None = all of them."""
    needed: frozenset[str] = frozenset()
    for options in each:
        wanted, preset = options.wanted(), options.columns_preset
        found: frozenset[str] | None
        if preset is None:
            found = long_columns(columns, options.layout, wanted, sidecar)
        elif is_long_preset(preset) and options.layout != "wide":
            found = frozenset({*OURS, *names_of_preset(preset), *wanted.values()})
        else:
            found = None
        if found is None:
            return None
        needed |= found
    return needed


def _part_of_table(source: Source, sidecar: Sidecar, options: ReadOptions) -> Part:
    wanted, columns = options.wanted(), source.columns
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
    read = set(names.values())
    if layout_of(options.layout, names, wanted, sidecar, source.columns) == "long":
        part = read_long(source, sidecar, names, bad=bad)
    else:
        metric = wanted.get("score")
        part = read_wide(source, sidecar, names, models=options.models, metric=metric, bad=bad)
        measured = metric is not None and bool(metric_models(source.columns, metric))
        part = replace(part, guessed=not measured and _is_guess(options, sidecar))
        prefixes = (f"{metric}{OF_MODEL}" if measured else "", COST, LOG_LIKELIHOOD)
        read |= {prefix + model for prefix in prefixes for model in part.models}
    part = replace(part, passed_over=tuple(name for name in columns if name not in read))
    return _without_scores(part, metrics_of(source)) if lacks else part


def _is_guess(options: ReadOptions, sidecar: Sidecar) -> bool:
    """Whether nobody named the models of a wide table, so that its numbers are taken for them."""
    named = (options.models, sidecar.model_columns, options.columns_preset)
    return all(given is None for given in named)


def _part_of_reading(reading: FormatReading, format: str, options: ReadOptions) -> Part:
    source, sidecar = reading.source, reading.sidecar
    bad = BadRows(source, options.on_error)
    names = {name: name for name in source.columns}
    if reading.layout == "wide":
        part = read_wide(source, sidecar, names, models=options.models, bad=bad)
    else:
        part = read_long(source, sidecar, names, bad=bad)
    if options.only_metric and reading.lacks is not None:
        part = _without_scores(part, reading.lacks)
    return replace(part, format=format, notes=reading.notes, lacks=reading.lacks)


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


def _merged(rows: AllRows, options: ReadOptions, aliases: Aliases) -> BenchmarkTable:
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
