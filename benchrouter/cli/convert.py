"""``benchrouter convert``: benchmark results in any known format to one wide table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.reading import Also, Metric, Sources, reads_results

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable


@reads_results
def convert(
    sources: Sources,
    target: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="TABLE", help="Wide table: .parquet, .csv or .jsonl."
        ),
    ],
    reading: dict[str, Any],
    metric: Metric = None,
    also: Also = None,
    correct_above: options.CorrectAbove = None,
    models: options.Models = None,
    datasets: options.Datasets = None,
    max_params: options.MaxParams = None,
    min_records: options.MinRecords = None,
    complete: options.Complete = False,
    as_json: options.Json = False,
) -> None:
    """Read benchmark results, say what was read, and write them as one table and its sidecar."""
    from benchrouter.cli.table_notes import lacking_values, odd_models
    from benchrouter.tables.read import read_with_metrics
    from benchrouter.tables.report import table_report
    from benchrouter.tables.write import check_target, write_table

    further = options.further_metrics(also)
    check_target(target, sources)
    selected: dict[str, Any] = dict(
        models=options.listed(models),
        datasets=options.listed(datasets),
        max_params=max_params,
        min_records=min_records,
        complete=complete,
    )
    table, others = read_with_metrics(
        sources,
        further,
        metric=metric,
        thresholds=options.thresholds(correct_above),
        **selected,
        **reading,
    )
    metrics = {name: _on_records_of(table, other) for name, other in others.items()}
    write_table(table, target, metrics=metrics)
    report = table_report(table)
    doubts = odd_models(table)
    lacking = [
        line for name, other in metrics.items() for line in lacking_values(table, name, other)
    ]
    if as_json:
        document = report.describe()
        notes = [*document["notes"], *lacking]
        output.emit({"output": str(target), **document, "notes": notes, "doubts": doubts})
    else:
        output.say("\n".join([report.text(), *(f"note: {line}" for line in lacking), *doubts]))
        output.say(f"written to {target}")


def _on_records_of(table: BenchmarkTable, other: BenchmarkTable) -> BenchmarkTable:
    """The scores of another table on the records and models of this one, where it has them."""
    import numpy as np

    from benchrouter.tables.changes import keys

    rows = {key: row for row, key in enumerate(keys(other))}
    columns = {model: column for column, model in enumerate(other.models)}
    scores = np.full(table.scores.shape, np.nan, dtype=np.float32)
    of = np.array([rows.get(key, -1) for key in keys(table)], dtype=np.int64)
    for column, model in enumerate(table.models):
        if model in columns:
            there = of >= 0
            scores[there, column] = other.scores[of[there], columns[model]]
    return replace(table, scores=scores, cost_usd=None, log_likelihood=None)
