"""The report of a table: a row per dataset and per model, warnings and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchrouter.files.words import counted
from benchrouter.tables.origin import Origin, SourceRead
from benchrouter.tables.report.warnings import TableWarning, n_datasets_of, warnings_of

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

UNKNOWN = "–"


@dataclass(frozen=True)
class DatasetRow:
    """One dataset.

    Attributes
    ----------
    name : str
    n_records : int
    n_scores : int
        Of all models together.
    missing : float
        Share of records × models without a score, in [0, 1].
    metric : str or None
        None = not stated.
    threshold : float or None
        A score above it is correct; None = none is known.
    duplicates : int
        Scores that were read more than once and counted once.
    conflicts : int
        Scores that differ from an earlier one of the same record and model.
    """

    name: str
    n_records: int
    n_scores: int
    missing: float
    metric: str | None
    threshold: float | None
    duplicates: int
    conflicts: int


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Attributes
    ----------
    name : str
    n_scores : int
        Records that it has a score on.
    n_datasets : int
        Datasets that these are of.
    missing : float
        Share of all records without a score, in [0, 1].
    duplicates, conflicts : int
        As in `DatasetRow`.
    """

    name: str
    n_scores: int
    n_datasets: int
    missing: float
    duplicates: int
    conflicts: int


@dataclass(frozen=True)
class TableReport:
    """What was read.

    Attributes
    ----------
    n_records : int
    sources : tuple of SourceRead
        Empty if the table was not read.
    datasets : tuple of DatasetRow
    models : tuple of ModelRow
    warnings : tuple of TableWarning
        What may not be what was meant.
    notes : tuple of str
        What readers and merging decided or left out; "SOURCE: …" where a reader said it.
    skipped : tuple of str
        What could not be read.
    """

    n_records: int
    sources: tuple[SourceRead, ...]
    datasets: tuple[DatasetRow, ...]
    models: tuple[ModelRow, ...]
    warnings: tuple[TableWarning, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]

    def text(self, limit: int = 20) -> str:
        """Return lines to print, with at most `limit` rows, warnings or notes of a kind."""
        sources = f" from {counted(len(self.sources), 'source')}" if self.sources else ""
        lines = [
            f"read {counted(self.n_records, 'record')} of {counted(len(self.datasets), 'dataset')} "
            f"and {counted(len(self.models), 'model')}{sources}",
            "",
            *_columns(
                ("dataset", "metric", "records", "missing", "threshold", "duplicates", "conflicts"),
                [
                    (
                        row.name,
                        row.metric or UNKNOWN,
                        f"{row.n_records:,}",
                        _share(row.missing),
                        UNKNOWN if row.threshold is None else f"{row.threshold:g}",
                        f"{row.duplicates:,}",
                        f"{row.conflicts:,}",
                    )
                    for row in self.datasets
                ],
                2,
                limit,
            ),
            "",
            *_columns(
                ("model", "records", "missing", "datasets", "duplicates", "conflicts"),
                [
                    (
                        row.name,
                        f"{row.n_scores:,}",
                        _share(row.missing),
                        f"{row.n_datasets:,}",
                        f"{row.duplicates:,}",
                        f"{row.conflicts:,}",
                    )
                    for row in self.models
                ],
                1,
                limit,
            ),
        ]
        said = [
            *_limited("warning", [warning.message for warning in self.warnings], limit),
            *_limited("note", self.notes, limit),
            *_limited("skipped", self.skipped, limit),
        ]
        return "\n".join([*lines, "", *said] if said else lines)

    def describe(self) -> dict[str, Any]:
        """Return everything, ready for JSON; unknown is None."""
        return asdict(self)


def table_report(table: BenchmarkTable) -> TableReport:
    """Report on a table.

    Parameters
    ----------
    table : BenchmarkTable
        Of one that was selected from, what is left of it is reported; of sources and notes, all.
    """
    origin = table.origin or Origin()
    present = ~np.isnan(table.scores)
    n_records = np.bincount(table.dataset, minlength=table.n_datasets)
    in_dataset = np.bincount(table.dataset, present.sum(axis=1), table.n_datasets).astype(int)
    of_model, n_datasets = present.sum(axis=0), n_datasets_of(table)
    duplicates = _totals(table, origin.duplicates)
    conflicts = _totals(table, origin.conflicts)
    return TableReport(
        n_records=table.n_records,
        sources=origin.sources,
        datasets=tuple(
            DatasetRow(
                name=name,
                n_records=int(n_records[i]),
                n_scores=int(in_dataset[i]),
                missing=1.0 - float(in_dataset[i] / (n_records[i] * table.n_models)),
                metric=table.metrics[i] or None,
                threshold=None if np.isnan(table.thresholds[i]) else float(table.thresholds[i]),
                duplicates=duplicates[0][name],
                conflicts=conflicts[0][name],
            )
            for i, name in enumerate(table.datasets)
        ),
        models=tuple(
            ModelRow(
                name=name,
                n_scores=int(of_model[i]),
                n_datasets=int(n_datasets[i]),
                missing=1.0 - float(of_model[i] / table.n_records),
                duplicates=duplicates[1][name],
                conflicts=conflicts[1][name],
            )
            for i, name in enumerate(table.models)
        ),
        warnings=warnings_of(table),
        notes=(*_reader_notes(origin.sources), *origin.notes),
        skipped=table.skipped,
    )


def _totals(
    table: BenchmarkTable, counts: Mapping[tuple[str, str], int]
) -> tuple[Counter[str], Counter[str]]:
    """By dataset and by model, of those that the table has."""
    datasets, models = set(table.datasets), set(table.models)
    by_dataset: Counter[str] = Counter()
    by_model: Counter[str] = Counter()
    for (dataset, model), n in counts.items():
        if dataset in datasets and model in models:
            by_dataset[dataset] += n
            by_model[model] += n
    return by_dataset, by_model


def _reader_notes(sources: Sequence[SourceRead]) -> list[str]:
    """Notes of readers, after their sources; what several were told alike stands once."""
    names: dict[str, list[str]] = {}
    for source in sources:
        for note in source.notes:
            names.setdefault(note, []).append(source.name)
    return [
        note if _says_of_what(note, sources_of[0]) else f"{_first(sources_of)}: {note}"
        for note, sources_of in names.items()
    ]


def _says_of_what(note: str, source: str) -> bool:
    """Whether a note begins with the source, or a folder that it lies in."""
    path = Path(source)
    return any(note.startswith(f"{about}: ") for about in (path, *path.parents))


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int, limit: int
) -> list[str]:
    """Aligned columns: the first `n_texts` to the left, numbers to the right."""
    shown = [names, *rows[:limit]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(names))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < n_texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in shown
    ]
    return [*lines, *_more(len(rows), limit)]


def _limited(what: str, messages: Sequence[str], limit: int) -> list[str]:
    more = _more(len(messages), limit, f"{what}: ")
    return [*(f"{what}: {message}" for message in messages[:limit]), *more]


def _more(n: int, limit: int, before: str = "") -> list[str]:
    return [f"{before}… and {n - limit:,} more"] if n > limit else []


def _share(share: float) -> str:
    """Percent; of what is there but would round to nothing, or to everything, not that."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"
