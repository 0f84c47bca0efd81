"""lm-evaluation-harness: folders written with ``--log_samples``.

The files are ``samples_<task>_<date>.jsonl`` and the ``results_<date>.json`` beside it, or the JSON
arrays of older versions. They hold every sample once for each filter, with several metrics. The
default metric is the first of the task's ``metric_list`` that is one number a sample and of which
more is better; the default filter is the first under which the results have that metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from benchrouter.files.errors import BadInput
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.folders import files_below
from benchrouter.tables.formats.lm_eval.files import Found, Results, find, kind_of
from benchrouter.tables.formats.lm_eval.runs import check_comparable, chosen_runs
from benchrouter.tables.formats.lm_eval.samples import TaskReader
from benchrouter.tables.formats.long_rows import FormatReading, read_or_refused, refused, with_notes

SHOWN = 3  # tasks that a note names


def recognises(path: Path) -> bool:
    """Whether a file, or one in a folder, holds samples or results of the harness."""
    return any(kind_of(file) for file in files_below(path))


def read(path: Path, choices: Choices) -> Iterator[FormatReading]:
    """Read a file, a run's folder, or a folder above several.

    Parameters
    ----------
    path : Path
    choices : Choices
        `metric`, `filter`, `prompt`, `shots`, `runs` and `groups` count.

    Yields
    ------
    FormatReading
        One for each model and task. One that cannot be read has no rows, and its source says why;
        so do broken results, and results of a model that has no samples at all. The last reading
        has notes on all of them.

    Raises
    ------
    ValueError
        If runs differ, or no task has the filter.
    """
    found = find(path)
    without = _without_samples(found)
    samples, notes = chosen_runs(found.samples, choices)
    readers = [TaskReader(one, choices) for one in samples]

    def said() -> Iterator[str]:
        read = [reader for reader in readers if reader.is_read]
        _check_filter(path, read, choices.filter)
        check_comparable([reader.samples for reader in read if reader.prompt == "request"])
        told = _by_tasks([*_said(read), *notes, *_not_logged(found, without)])
        if choices.groups and not any(reader.is_grouped for reader in read):
            told.append("the results name no group of these tasks")
        folder = path if path.is_dir() else path.parent
        about = f"{folder}: " if len(readers) > 1 else ""
        return (about + note for note in told)

    readings = chain(
        (refused(str(file), why) for file, why in found.broken.items()),
        map(_refused_results, without),
        (read_or_refused(str(one.samples.path), one.read) for one in readers),
    )
    return with_notes(readings, said)


def _said(readers: Iterable[TaskReader]) -> list[tuple[str, str]]:
    return [(reader.samples.task, note) for reader in readers for note in reader.notes()]


def _by_tasks(said: Iterable[tuple[str, str]]) -> list[str]:
    """Join equal notes of several tasks into one."""
    tasks: dict[str, dict[str, None]] = {}
    for task, note in said:
        tasks.setdefault(note, {})[task] = None
    return [
        f"{', '.join(names)}: {note}" if len(names) <= SHOWN else f"{note} ({len(names):,} tasks)"
        for note, names in tasks.items()
    ]


def _without_samples(found: Found) -> list[Results]:
    """Results of models that have no samples in any run."""
    models = {one.model for one in found.samples}
    paths = {one.results.path for one in found.samples if one.results is not None}
    return [one for one in found.results if one.path not in paths and one.model not in models]


def _refused_results(results: Results) -> FormatReading:
    return refused(
        str(results.path),
        f"{results.path}: found results of {results.model!r} but no samples beside them; run "
        "lm_eval with --log_samples, and keep its files samples_*.jsonl where they are",
    )


def _not_logged(found: Found, without: Sequence[Results]) -> list[tuple[str, str]]:
    """Tasks with results but without samples in any run."""
    results = [one for one in found.results if one not in without]
    logged = {(one.model, one.task) for one in found.samples}
    lacking = {(one.model, task) for one in results for task in one.tasks()} - logged
    return [(task, f"{model} has results but no samples") for model, task in sorted(lacking)]


def _check_filter(path: Path, readers: Sequence[TaskReader], wanted: str | None) -> None:
    """Refuse a filter that no task has."""
    if wanted is not None and readers and all(reader.filter != wanted for reader in readers):
        found = {reader.samples.task: reader.found_filters for reader in readers}
        shown = "; ".join(f"{task}: {', '.join(names)}" for task, names in found.items())
        raise BadInput(f"{path}: no task has the filter {wanted!r}, found {shown}")
