"""``benchrouter fit``: a router from benchmark results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import (
    cache_folder,
    check_length,
    encode_all,
    load_all_embeddings,
    load_encoder,
    refuse_difference,
)
from benchrouter.cli.reading import Metric, Sources, reads_results

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchrouter.embeddings import Encoder, Fingerprint
    from benchrouter.router import Router
    from benchrouter.tables.table import BenchmarkTable


@reads_results
def fit(
    tables: Sources,
    directory: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the router.")
    ],
    reading: dict[str, Any],
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
            "if not given. With --embeddings it is only recorded."
        ),
    ] = None,
    cache: options.Cache = True,
    cache_dir: options.CacheDir = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    k: Annotated[
        int, typer.Option(min=1, help="Neighbours that vote by the rules mean, raw and s3.")
    ] = 5,
    kappa: Annotated[int, typer.Option(min=1, help="Neighbours that measure distance.")] = 19,
    sigma: Annotated[float, typer.Option(help="Width of the smoother of p.")] = 0.09,
    eta: Annotated[float, typer.Option(help="Least chance of beating the best on average.")] = 0.6,
    threshold: Annotated[float, typer.Option(help="t: a vote above it predicts 'correct'.")] = 0.5,
    correct_above: options.CorrectAbove = None,
    models: options.Models = None,
    datasets: options.Datasets = None,
    max_params: options.MaxParams = None,
    min_records: options.MinRecords = None,
    complete: options.Complete = False,
    metric: Metric = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Answer where evidence is thin; the best on average if not given."
        ),
    ] = None,
    label_shares: Annotated[
        str | None,
        typer.Option(metavar="0,.02,…", help="Shares of labels in the training of p."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="An approximate index of faiss, by its factory string (IVF1024,Flat, HNSW32 …), "
            "for tables too large to search exactly; exact if not given.",
        ),
    ] = None,
    seed: options.Seed = 0,
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Fit a router on per-sample benchmark results and save it."""
    options.check_dtype(dtype)
    thresholds = options.thresholds(correct_above)
    shares = options.shares(label_shares)
    if embeddings and len(embeddings) != len(tables):
        raise typer.BadParameter(
            f"found {len(embeddings)} files for {len(tables)} tables, expected one each",
            param_hint="--embeddings",
        )
    from benchrouter.cli.table_notes import odd_models, without_threshold
    from benchrouter.router import Router
    from benchrouter.scores.fitted import Settings
    from benchrouter.scores.pairs import LABEL_SHARES
    from benchrouter.scores.saved import check_target
    from benchrouter.tables.read import read_table
    from benchrouter.tables.report import table_report

    settings = Settings(
        k=k,
        kappa=kappa,
        sigma=sigma,
        eta=eta,
        threshold=threshold,
        seed=seed,
        label_shares=LABEL_SHARES if shares is None else shares,
        fallback=fallback,
        index=index,
    )
    check_target(directory)
    stages = output.StageClock()
    with stages("read"):
        table = read_table(
            tables,
            metric=metric,
            models=options.listed(models),
            datasets=options.listed(datasets),
            max_params=max_params,
            min_records=min_records,
            complete=complete,
            thresholds=thresholds,
            **reading,
        )
    output.say(table_report(table).text())
    warnings = [*without_threshold(table), *odd_models(table)]
    for warning in warnings:
        output.say(warning)
    if fallback is not None and fallback not in table.models:
        raise ValueError(f"--fallback: found {fallback!r}, expected one of {list(table.models)}")
    embedded_by: Encoder | Fingerprint | None
    if embeddings:
        with stages("embeddings"):
            rows, embedded_by = _given(embeddings, encoder, dtype)
            check_length(embeddings, len(rows), table)
    else:
        with stages("load encoder"):
            embedded_by = loaded = load_encoder(
                encoder,
                device=device,
                dtype=dtype,
                cache_dir=cache_folder(cache, cache_dir),
            )
        with stages("encode"):
            rows = encode_all(loaded, table.prompts)
    with stages("fit"), output.StageProgress() as progress:
        router = Router.fit(
            table,
            settings=settings,
            encoder=embedded_by,
            embeddings=rows,
            threads=threads,
            progress=progress,
        )
    with stages("save"):
        router.save(directory)
    document = _document(table, router, directory, stages.seconds, warnings)
    if as_json:
        output.emit(document)
    else:
        _show(document)


def _given(
    paths: list[Path], encoder: str | None, dtype: str
) -> tuple[NDArray[Any], Fingerprint | None]:
    """Embeddings from files, and the encoder that is recorded for them."""
    rows, beside = load_all_embeddings(paths)
    if encoder is None:
        if beside is None:
            output.say(
                "note: no --encoder and no FILE.npy.json: the router records no encoder, and can "
                "only be used with --embeddings"
            )
        return rows, beside
    with output.encoder_needed():
        from benchrouter.embeddings import fingerprint_of

        named = fingerprint_of(encoder, dtype="unknown" if dtype == "auto" else dtype)
    if beside is not None:
        refuse_difference(named, beside, paths[0])
    if named.dim != rows.shape[1]:
        raise ValueError(
            f"{paths[0]}: embeddings have dim {rows.shape[1]}, the encoder {named.name} has dim "
            f"{named.dim}"
        )
    return rows, named


def _document(
    table: BenchmarkTable,
    router: Router,
    directory: Path,
    seconds: dict[str, float],
    warnings: list[str],
) -> dict[str, Any]:
    import numpy as np

    described = router.describe()
    return {
        "output": str(directory),
        "records": table.n_records,
        "datasets": table.n_datasets,
        "models": list(table.models),
        "missing": float(np.isnan(table.scores).mean()),
        "skipped": list(table.skipped),
        "warnings": warnings,
        "best_on_average": described["best_on_average"],
        "encoder": described["encoder"],
        "index": described["approximation"],
        "seconds": seconds,
    }


def _show(document: dict[str, Any]) -> None:
    encoder = document["encoder"]
    output.facts(
        [
            ("records", document["records"]),
            ("datasets", document["datasets"]),
            ("models", f"{len(document['models'])}: {', '.join(document['models'])}"),
            ("scores missing", f"{document['missing']:.1%}"),
            ("records skipped", len(document["skipped"])),
            ("best on average", document["best_on_average"]),
            ("encoder", encoder["name"] if encoder else "none recorded: give --embeddings"),
            ("index", output.index(document["index"])),
            ("seconds", ", ".join(f"{n} {s:.1f}" for n, s in document["seconds"].items())),
            ("written to", document["output"]),
        ]
    )
