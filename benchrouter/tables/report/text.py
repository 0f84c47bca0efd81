"""The report as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchrouter.files.words import counted

if TYPE_CHECKING:
    from benchrouter.tables.report.report import Report

UNKNOWN = "–"


def as_text(report: Report, limit: int) -> str:
    """Return what was read, then warnings, then notes; see `Report.text`."""
    sources = f" from {counted(len(report.sources), 'source')}" if report.sources else ""
    lines = [
        f"read {counted(report.n_records, 'record')} of {counted(len(report.datasets), 'dataset')} "
        f"and {counted(len(report.models), 'model')}{sources}",
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
                for row in report.datasets
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
                for row in report.models
            ],
            1,
            limit,
        ),
    ]
    said = [
        *_limited("warning", [warning.message for warning in report.warnings], limit),
        *_limited("note", report.notes, limit),
        *_limited("skipped", report.skipped, limit),
    ]
    return "\n".join([*lines, "", *said] if said else lines)


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
