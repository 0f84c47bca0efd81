"""``benchrouter route``: a model for every prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import load_router

if TYPE_CHECKING:
    from benchrouter.batch.parts import PartsOutput
    from benchrouter.batch.prompts import PromptBatch
    from benchrouter.batch.single import SingleOutput
    from benchrouter.router import Router
    from benchrouter.rules import Rule

GIVEN_BATCH = 8192
ENCODED_BATCH = 1024  # some seconds on a CPU, so that progress is seen
PART_SIZE = 100_000


def route(
    directory: options.RouterDir,
    prompts: options.Prompts,
    target: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/",
            help="Decisions: .jsonl, .csv (these also .gz or .zst) or .parquet; a directory, or a "
            "name without a suffix, takes them in parts; - writes JSONL to stdout.",
        ),
    ],
    rule: Annotated[str, typer.Option(help="mean, raw or s3.")] = "mean",
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Model for prompts without evidence, instead of the router's."
        ),
    ] = None,
    embeddings: options.Embeddings = None,
    encoder: options.EncoderName = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Prompts in memory at a time; {GIVEN_BATCH} with --embeddings, else "
            f"{ENCODED_BATCH}.",
        ),
    ] = None,
    prompt_column: options.PromptColumn = "prompt",
    format: options.Format = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="What a bad record does: report (go on, write it to the side file, exit 4), skip "
            "(go on, list it, exit 0) or raise (stop)."
        ),
    ] = "report",
    rejected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Side file of bad records; OUTPUT.rejected.jsonl with --on-error report. A "
            "directory has a folder of its own for them.",
        ),
    ] = None,
    keep_prompt: Annotated[
        bool, typer.Option("--prompt/--no-prompt", help="Write the prompts too.")
    ] = True,
    prefix: Annotated[
        str,
        typer.Option(help="Put before model, score, margin, distance and fallback in the output."),
    ] = "",
    part_size: Annotated[
        int | None,
        typer.Option(min=1, help=f"Records of the input that a part covers; {PART_SIZE}."),
    ] = None,
    output_format: Annotated[
        str | None, typer.Option(help="Parts: parquet (if not given) or jsonl.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the parts in the directory, after any kill."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Route every prompt to a model.

    The output holds the fields of the input, the prompt, and model, score, margin, distance,
    fallback. A file appears under its name only when it is complete. A directory gets a file for
    every 100,000 records as soon as it is complete, and manifest.json, by which --resume goes on.
    Embeddings are not kept: encode prompts that are routed again with `benchrouter encode`.
    """
    chosen_rule = options.check_rule(rule)
    options.check_format(format)
    options.one_of(on_error, ("report", "skip", "raise"), "--on-error")
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    written = {"prompt_column": prompt_column if keep_prompt else None, "prefix": prefix}
    sink: PartsOutput | SingleOutput
    if _names_directory(target):
        part_size = part_size or PART_SIZE
        if rejected is not None:
            raise typer.BadParameter(
                "a directory has its own folder of them", param_hint="--rejected"
            )
        job = {
            **_job(directory, prompts, embeddings, encoder, format),
            "prompt_column": prompt_column,
            "rule": rule,
            "fallback": fallback,
            "keep_prompt": keep_prompt,
            "prefix": prefix,
        }
        sink = _parts(target, job, part_size, output_format or "parquet", resume, written)
    else:
        if resume or part_size is not None or output_format is not None:
            raise typer.BadParameter(
                f"--resume, --part-size and --output-format are for a directory, found {target}",
                param_hint="--output",
            )
        sink = _single(target, on_error, rejected, written)
    from benchrouter.batch.prompts import read_prompts

    n_before = sink.totals.prompts
    skipped = _Skipped(listed=on_error == "report" and sink.rejected is None)
    seconds = 0.0
    with sink:
        if not sink.complete:
            router = load_router(
                directory,
                encoder=encoder,
                embeddings=embeddings,
                device=device,
                threads=threads,
                fallback=fallback,
            )
            batches = read_prompts(
                prompts,
                batch=batch_size or (GIVEN_BATCH if embeddings is not None else ENCODED_BATCH),
                on_error="raise" if on_error == "raise" else "skip",
                prompt_column=prompt_column,
                format=format,
                first_row=sink.first_row,
                part_size=part_size,
            )
            seconds = _run(router, batches, embeddings, chosen_rule, sink, skipped)
    totals = sink.totals
    n_now = totals.prompts - n_before
    kept_in = str(sink.rejected) if sink.rejected is not None and totals.rejected else None
    document = {
        "output": target,
        "rule": rule,
        "prompts": totals.prompts,
        "seconds": seconds,
        "prompts_per_second": n_now / seconds if seconds else None,
        "models": dict(totals.models.most_common()),
        "fallbacks": totals.fallbacks,
        "skipped": totals.rejected,
        "first_skipped": skipped.first,
        "rejected": kept_in,
        "parts": sink.n_parts,
    }
    if not skipped.listed:
        where = f", all in {kept_in}" if kept_in else ""
        output.say_skipped(skipped.first, totals.rejected, where)
    if as_json:
        output.emit(document)
    else:
        _summary(document, n_now)
    if on_error == "report" and totals.rejected:
        raise typer.Exit(output.SOME_REJECTED)


def _names_directory(target: str) -> bool:
    path = Path(target)
    return target != "-" and (target.endswith("/") or not path.suffix or path.is_dir())


def _parts(
    directory: str,
    job: dict[str, Any],
    part_size: int,
    format: str,
    resume: bool,
    written: dict[str, Any],
) -> PartsOutput:
    from benchrouter.batch.parts import FORMATS, PartsOutput

    options.one_of(format, FORMATS, "--output-format")
    if resume and job["input"]["bytes"] is None:
        raise ValueError(
            f"{job['input']['path']} is no regular file, so that no job on it can be resumed"
        )
    job |= {"part_size": part_size, "output_format": format}
    sink = PartsOutput(
        directory, job=job, part_size=part_size, format=format, resume=resume, **written
    )
    if sink.complete:
        output.say(f"{directory} is complete: there is nothing to do")
    elif sink.first_row:
        output.say(f"going on behind {sink.first_row:,} records in {sink.n_parts:,} parts")
    return sink


def _single(
    target: str, on_error: str, rejected: Path | None, written: dict[str, Any]
) -> SingleOutput:
    from benchrouter.batch.single import SingleOutput

    if rejected is not None and on_error == "raise":
        raise typer.BadParameter("--on-error raise keeps none", param_hint="--rejected")
    if rejected is None and on_error == "report" and target != "-":
        rejected = Path(f"{target}.rejected.jsonl")
    return SingleOutput(target, rejected=rejected, **written)


def _run(
    router: Router,
    batches: Iterator[PromptBatch],
    embeddings: Path | None,
    rule: Rule,
    sink: PartsOutput | SingleOutput,
    skipped: _Skipped,
) -> float:
    """Route all batches; the seconds that it took."""
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.routing import route_batches

    pairs: Iterator[tuple[PromptBatch, Any]]
    if embeddings is None:
        pairs = ((batch, None) for batch in batches)
    else:
        pairs = with_embeddings(batches, embeddings, first_row=sink.first_row)
    with output.Progress("route", "prompts") as advance:
        for batch, decisions in route_batches(router, pairs, rule=rule):
            sink.write(batch, decisions)
            skipped.note(batch)
            advance(len(batch.prompts), batch.share)
        return advance.seconds


def _job(
    directory: Path, prompts: str, embeddings: Path | None, encoder: str | None, format: str | None
) -> dict[str, Any]:
    """Files that the answer depends on, by what is in them."""
    from benchrouter.artifact import read_description
    from benchrouter.batch.manifest import mark_of
    from benchrouter.batch.prompts import format_of

    description = read_description(directory)
    return {
        "input": mark_of(prompts),
        "format": format or (None if prompts == "-" else format_of(prompts)),
        "router": description["sha256"],
        "embeddings": None if embeddings is None else mark_of(embeddings),
        # an encoder that the router records may stand anywhere: it is compared when it is loaded
        "encoder": encoder if description["encoder"] is None else None,
    }


class _Skipped:
    """Messages about bad records: the first ones, to be shown in the end, or all at once."""

    def __init__(self, *, listed: bool) -> None:
        self.listed = listed
        self.first: list[str] = []

    def note(self, batch: PromptBatch) -> None:
        if self.listed:
            for record in batch.rejected:
                output.say(f"rejected {record.message}")
        left = output.SHOWN_SKIPS - len(self.first)
        self.first += [record.message for record in batch.rejected[:left]]


def _summary(document: dict[str, Any], n_now: int) -> None:
    n = document["prompts"]
    earlier = "" if n == n_now else f", {n:,} in all"
    output.say(
        f"routed {n_now:,} prompts in {document['seconds']:.1f} s"
        + (f", {document['prompts_per_second']:,.0f} a second" if n_now else "")
        + earlier
    )
    for model, count in document["models"].items():
        output.say(f"  {model}: {count:,} ({count / n:.1%})")
    if n:
        output.say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")
