"""``benchrouter update``: more or fewer records and models in a fitted router."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import (
    EncodingOptions,
    check_length,
    check_one_each,
    encode_all,
    load_all_embeddings,
    load_router,
)
from benchrouter.cli.reading import Metric, reads_results

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchrouter.router import Router
    from benchrouter.tables.table import BenchmarkTable


@reads_results
def update(
    directory: options.RouterDir,
    reading: dict[str, Any],
    add_records: Annotated[
        list[Path] | None,
        typer.Option(metavar="TABLE", help="Results on new records; repeat it for more files."),
    ] = None,
    embeddings: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.npy",
            help="Embeddings of the new records, one FILE for each TABLE; encoded if not given.",
        ),
    ] = None,
    add_model: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE",
            help="Results of new models on the router's records: every model in it is added.",
        ),
    ] = None,
    remove_model: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Remove these models.")
    ] = None,
    remove_dataset: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Remove these datasets.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write there instead of in place."),
    ] = None,
    correct_above: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DATASET=]VALUE",
            help="A score above VALUE is correct, in a dataset that is new.",
        ),
    ] = None,
    metric: Metric = None,
    encoder: options.EncoderName = None,
    cache: options.Cache = True,
    cache_dir: options.CacheDir = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Add records and models to a router, or remove some: removals first, records last."""
    without_models = options.listed(remove_model) or []
    without_datasets = options.listed(remove_dataset) or []
    if not (add_records or add_model or without_models or without_datasets):
        raise typer.BadParameter("found nothing to add and nothing to remove")
    check_one_each(embeddings, add_records, "tables of new records")
    from benchrouter.router import Router
    from benchrouter.scores.saved import check_target

    reading["metric"] = metric
    written_to = check_target(directory if target is None else target)
    stages = output.StageClock()
    encodes = bool(add_records) and not embeddings
    with stages("load"):
        encoding = EncodingOptions(None, encoder, cache, cache_dir, device, threads)
        router = (
            load_router(directory, encoding) if encodes else Router.load(directory, threads=threads)
        )
    if without_models or without_datasets:
        with stages("remove"):
            router.remove(models=without_models, datasets=without_datasets)
    if add_model:
        with stages("add models"):
            _add_models(router, _read(add_model, reading))
    if add_records:
        reading["thresholds"] = options.thresholds(correct_above)
        _add_records(router, add_records, embeddings, reading, stages)
    with stages("save"):
        router.save(written_to)
    document = _document(router, written_to, stages.seconds)
    if as_json:
        output.emit(document)
    else:
        _show(document)


def _read(paths: list[Path], reading: dict[str, Any]) -> BenchmarkTable:
    from benchrouter.tables.read import read_table

    table = read_table(paths, **reading)
    output.say_skipped(table.skipped)
    output.say_warnings(table)
    return table


def _add_models(router: Router, results: BenchmarkTable) -> None:
    for name in results.models:
        router.add_model(name, results)


def _add_records(
    router: Router,
    tables: list[Path],
    embeddings: list[Path] | None,
    reading: dict[str, Any],
    stages: output.StageClock,
) -> None:
    with stages("read records"):
        table = _read(tables, reading)
    with nullcontext() if embeddings else stages("encode"):
        rows = _rows(embeddings, router, table)
    with stages("add records"):
        router.add_records(table, rows)


def _rows(paths: list[Path] | None, router: Router, table: BenchmarkTable) -> NDArray[Any]:
    """Embeddings of new records, from files or else by the router's encoder."""
    if not paths:
        return encode_all(router.encoder, table.prompts)
    rows, fingerprint = load_all_embeddings(paths)
    check_length(paths, len(rows), table)
    if fingerprint is not None:
        router.check_encoder(fingerprint)
    return rows


def _document(router: Router, directory: Path, seconds: dict[str, float]) -> dict[str, Any]:
    described = router.describe()
    return {
        "output": str(directory),
        "records": described["n_records"],
        "datasets": len(described["datasets"]),
        "models": [model["name"] for model in described["models"]],
        "best_on_average": described["best_on_average"],
        "index": described["approximation"],
        "seconds": seconds,
    }


def _show(document: dict[str, Any]) -> None:
    output.facts(
        [
            ("records", document["records"]),
            ("datasets", document["datasets"]),
            ("models", f"{len(document['models'])}: {', '.join(document['models'])}"),
            ("best on average", document["best_on_average"]),
            ("index", output.index(document["index"])),
            ("seconds", ", ".join(f"{n} {s:.1f}" for n, s in document["seconds"].items())),
            ("written to", document["output"]),
        ]
    )
