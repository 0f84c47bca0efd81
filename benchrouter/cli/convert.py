"""``benchrouter convert``: benchmark results in any known format to one wide table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.reading import Metric, Sources, reads_results


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
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Further metrics of the same records, as columns NAME::<model> beside the scores.",
        ),
    ] = None,
    correct_above: options.CorrectAbove = None,
    models: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Only these models.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Only these datasets.")
    ] = None,
    max_params: Annotated[
        float | None, typer.Option(help="Only models of at most so many billion parameters.")
    ] = None,
    min_records: Annotated[
        int | None, typer.Option(min=1, help="Only datasets of at least so many records.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Only records with a score of every model.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Read benchmark results, say what was read, and write them as one table and its sidecar."""
    from benchrouter.readers.writing import check_target
    from benchrouter.table import BenchmarkTable

    check_target(target)
    selected: dict[str, Any] = dict(
        models=options.listed(models),
        datasets=options.listed(datasets),
        max_params=max_params,
        min_records=min_records,
        complete=complete,
    )
    table = BenchmarkTable.read(
        sources,
        metric=metric,
        thresholds=options.thresholds(correct_above),
        **selected,
        **reading,
    )
    metrics = {
        name: BenchmarkTable.read(sources, metric=name, **selected, **reading)
        for name in options.listed(also) or ()
    }
    table.write(target, metrics=metrics)
    report = table.report()
    if as_json:
        output.emit({"output": str(target), **report.describe()})
    else:
        output.say(report.text())
        output.say(f"written to {target}")
