"""``benchrouter evaluate``: the paper's experiments on benchmark results."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import (
    cache_folder,
    check_length,
    check_one_each,
    encode_all,
    load_all_embeddings,
    load_encoder,
)
from benchrouter.cli.reading import Also, Metric, Sources, reads_results
from benchrouter.files.opened import open_file, opened_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchrouter.embeddings import Encoder
    from benchrouter.evaluation.results import Evaluation
    from benchrouter.tables.table import BenchmarkTable

EXPERIMENTS = ("tasks", "prompts")


@reads_results
def evaluate(
    tables: Sources,
    reading: dict[str, Any],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write report.html, report.json and figures/."
        ),
    ] = None,
    embeddings: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.npy",
            help="Embeddings of the prompts, one row a record; repeat it, one for each TABLE.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="minilm, a local folder, or a hub name; sentence-transformers/all-mpnet-base-v2 "
            "if not given. With --embeddings it is only loaded for --robustness."
        ),
    ] = None,
    cache: options.Cache = True,
    cache_dir: options.CacheDir = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    protocols: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tasks,prompts",
            help="One model per dataset, one per prompt; both if not given.",
        ),
    ] = None,
    max_params: Annotated[
        list[str] | None,
        typer.Option(
            metavar="B,…",
            help="Only models of at most so many billion parameters; several give a pool of "
            "models each, and 'all' is the pool of all. Prompts are routed in the first.",
        ),
    ] = None,
    metric: Metric = None,
    also: Also = None,
    robustness: Annotated[
        int, typer.Option(min=0, metavar="N", help="Edit and route N test prompts again.")
    ] = 0,
    label_shares: Annotated[
        str | None,
        typer.Option(
            metavar="0,.02,…",
            help="Shares α of labels, 0 always among them; 0 to 0.28 if not given.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of labels at every share.")] = 10,
    k: Annotated[int, typer.Option(min=1, help="Neighbours that vote.")] = 5,
    kappa: Annotated[int, typer.Option(min=1, help="Neighbours that measure distance.")] = 19,
    sigma: Annotated[float, typer.Option(help="Width of the smoother of p.")] = 0.09,
    eta: Annotated[float, typer.Option(help="Least chance of beating the best on average.")] = 0.6,
    threshold: Annotated[float, typer.Option(help="t: a vote above it predicts 'correct'.")] = 0.5,
    correct_above: options.CorrectAbove = None,
    models: options.Models = None,
    datasets: options.Datasets = None,
    min_records: options.MinRecords = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Only records with a score of every model of a pool.")
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Draw figures (matplotlib).")
    ] = True,
    seed: options.Seed = 0,
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Run the paper's experiments on per-sample benchmark results."""
    options.check_dtype(dtype)
    experiments = options.listed(protocols) or list(EXPERIMENTS)
    for name in experiments:
        options.one_of(name, EXPERIMENTS, "--protocols")
    sizes = options.sizes(max_params)
    if metric is not None and "=" in metric:
        raise typer.BadParameter(
            f"found {metric!r}, expected the score to take; a further metric is --also {metric}",
            param_hint="--metric",
        )
    further = options.further_metrics(also)
    thresholds = options.thresholds(correct_above)
    shares = options.shares(label_shares)
    check_one_each(embeddings, tables, "tables")
    import numpy as np

    from benchrouter.evaluation.evaluate import evaluate as evaluate_table
    from benchrouter.evaluation.report.saved_report import write_report
    from benchrouter.scores.fitted import Settings
    from benchrouter.scores.pairs import LABEL_SHARES
    from benchrouter.tables.read import read_with_metrics

    settings = Settings(
        k=k,
        kappa=kappa,
        sigma=sigma,
        eta=eta,
        threshold=threshold,
        # the tables "no labels" are those of the first share
        label_shares=LABEL_SHARES if shares is None else tuple(sorted({0.0, *shares})),
        draws=draws,
        seed=seed,
    )
    if directory is not None:
        _check_report(directory, figures)
    stages = output.StageClock()
    reading |= {"models": options.listed(models), "datasets": options.listed(datasets)}
    with stages("read"), opened_once():
        table, others = read_with_metrics(
            tables, further, metric=metric, thresholds=thresholds, **reading
        )
        pools = {
            _title(size): table.select(max_params=size, min_records=min_records, complete=complete)
            for size in sizes
        }
        named = ", ".join(map(_named, tables))
    _say_read(table)
    table, pools = _used(table, pools)
    loaded: Encoder | None = None
    if not embeddings or robustness:
        with stages("load encoder"):
            loaded = load_encoder(
                encoder, device=device, dtype=dtype, cache_dir=cache_folder(cache, cache_dir)
            )
    with stages("embeddings"), opened_once():
        rows, source = _rows(embeddings or [], loaded, table)
    with output.StageProgress() as progress:
        found = evaluate_table(
            table,
            rows,
            pools=pools,
            metrics=others,
            experiments=experiments,
            settings=settings,
            encoder=loaded,
            robustness=robustness,
            threads=threads,
            progress=progress,
        )
    for name, seconds in stages.seconds.items():
        found.seconds[name] = seconds
    provenance = {
        "command": shlex.join(["benchrouter", *sys.argv[1:]]),
        "tables": named,
        "embeddings": source,
        "versions": f"Python {platform.python_version()}, numpy {np.__version__}",
    }
    if directory is not None:
        with stages("report"):
            page = write_report(found, directory, provenance=provenance, figures=figures)
    if as_json:
        from benchrouter.evaluation.report.saved_report import to_document

        output.emit(to_document(found, provenance))
        return
    _show(found)
    if directory is not None:
        output.facts([("report", str(page))])


def _say_read(table: BenchmarkTable) -> None:
    """Say on stderr what was read, what was left out, and what looks wrong."""
    from benchrouter.cli.table_notes import odd_models
    from benchrouter.evaluation.report.sheets.sheet import counted

    output.say(
        f"read {counted(table.n_records, 'record')}, {counted(table.n_datasets, 'dataset')}, "
        f"{counted(table.n_models, 'model')}"
    )
    output.say_skipped(table.skipped)
    output.say_warnings(table)
    for doubt in odd_models(table):
        output.say(doubt)


def _check_report(directory: Path, figures: bool) -> None:
    """Fail now, rather than after the work, where no report can be written or drawn."""
    from benchrouter.evaluation.report.saved_report import check_target

    check_target(directory)
    if figures:
        from benchrouter.evaluation.report.figures.style import paper

        with paper():
            pass


def _named(path: Path) -> str:
    """Name of a file or folder, and what tells its content from another's."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for one in files:
        if one != path:
            digest.update(os.fsencode(one.relative_to(path)) + b"\0")
        with open_file(one) as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return f"{path} (SHA-256 {digest.hexdigest()[:16]}…)"


def _title(size: float | None) -> str:
    return "all models" if size is None else f"models of at most {size:g} billion parameters"


def _used(
    table: BenchmarkTable, pools: dict[str, BenchmarkTable]
) -> tuple[BenchmarkTable, dict[str, BenchmarkTable]]:
    """Drop the records that no pool uses: they need no embedding."""
    import numpy as np

    used = np.zeros(table.n_source_rows, dtype=bool)
    for pool in pools.values():
        used[pool.source_rows] = True
    kept = used[table.source_rows]
    return (table if kept.all() else table.rows(kept)), pools


def _rows(
    paths: list[Path], encoder: Encoder | None, table: BenchmarkTable
) -> tuple[NDArray[Any], str]:
    """Embeddings from files or else by the encoder, and a word on where they come from."""
    if encoder is not None and not paths:
        return encode_all(encoder, table.prompts), encoder.fingerprint.name
    rows, recorded = load_all_embeddings(paths)
    check_length(paths, len(rows), table)
    by = f" ({recorded.name})" if recorded is not None else ""
    return rows, ", ".join(map(_named, paths)) + by


def _show(found: Evaluation) -> None:
    from benchrouter.evaluation.report.outline import sections
    from benchrouter.evaluation.report.sheets.sheet import Sheet
    from benchrouter.evaluation.report.summary import banner, notes_of, summary

    out = output.console()
    for line in banner(found):
        out.print(line)
    out.print()
    for paragraph in summary(found):
        out.print(paragraph)  # wrapped between words
    out.print()
    for section in sections(found):
        for item in section.content:
            if isinstance(item, Sheet) and not item.detail:
                output.show_sheet(item)
    notes = notes_of(found)
    if notes:
        output.facts([("notes" if i == 0 else "", note) for i, note in enumerate(notes)])
