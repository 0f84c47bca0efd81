"""``benchrouter route``: a model for every prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.encoding import load_router, routing_device
from benchrouter.cli.route_groups import check_options, route_groups

if TYPE_CHECKING:
    from benchrouter.batch.parts import PartsOutput
    from benchrouter.batch.prompts import PromptBatch
    from benchrouter.batch.single import SingleOutput

GIVEN_BATCH = 8192
ENCODED_BATCH = 1024  # some seconds on a CPU, so that progress is seen
PART_SIZE = 100_000


def route(
    context: typer.Context,
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
    cost_weight: cost_options.CostWeight = None,
    max_cost_usd: cost_options.MaxCost = None,
    budget_usd: cost_options.Budget = None,
    within: cost_options.Within = None,
    min_success: cost_options.MinSuccess = None,
    costs: cost_options.Costs = None,
    output_tokens: cost_options.OutputTokens = None,
    embeddings: options.Embeddings = None,
    encoder: options.EncoderName = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Choose one model for all prompts of equal COLUMN, as `choose` does, and write a "
            "row for each such group.",
        ),
    ] = None,
    score: Annotated[
        str, typer.Option(help="With --group-by: auto (expected accuracy), s1, s2 or s3.")
    ] = "auto",
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
            "(go on, list it, exit 0) or raise (stop; with --group-by, report does so too)."
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
    fallback; with an option of costs also cost_usd, what the model is expected to cost. A file
    appears under its name only when it is complete. A directory gets a file for every 100,000
    records as soon as it is complete, and manifest.json, by which --resume goes on. Embeddings are
    not kept: encode prompts that are routed again with `benchrouter encode`.

    With --group-by the output holds a row for every group instead: COLUMN, n_prompts, model,
    score, runner_up, margin, expected_accuracy, its interval, fallback, reason and more.
    """
    check_options(context, group_by, prompt_column, prefix)
    if group_by is not None:
        route_groups(
            directory,
            prompts,
            target,
            column=group_by,
            score=options.check_score(score),
            embeddings=embeddings,
            encoder=encoder,
            device=device,
            threads=threads,
            batch_size=batch_size or (ENCODED_BATCH if embeddings is None else GIVEN_BATCH),
            prompt_column=prompt_column,
            format=format,
            on_error="skip" if on_error == "skip" else "raise",
            prefix=prefix,
            as_json=as_json,
        )
        return
    chosen_rule = options.check_rule(rule)
    options.check_format(format)
    options.one_of(on_error, ("report", "skip", "raise"), "--on-error")
    in_parts = _names_directory(target)
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    if rejected is not None and (in_parts or on_error == "raise"):
        raise typer.BadParameter(
            "a directory has its own folder of them" if in_parts else "--on-error raise keeps none",
            param_hint="--rejected",
        )
    if not in_parts and (resume or part_size is not None or output_format is not None):
        raise typer.BadParameter(
            f"--resume, --part-size and --output-format are for a directory, found {target}",
            param_hint="--output",
        )
    options.one_of(output_format or "parquet", ("parquet", "jsonl"), "--output-format")
    policy = cost_options.policy_of(
        cost_weight=cost_weight,
        max_cost_usd=max_cost_usd,
        budget_usd=budget_usd,
        within=within,
        min_success=min_success,
        costs=costs,
        output_tokens=output_tokens,
    )
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.parts import PartsOutput
    from benchrouter.batch.prompts import read_prompts
    from benchrouter.batch.routing import route_batches
    from benchrouter.batch.single import SingleOutput

    written_prompt = prompt_column if keep_prompt else None
    further = cost_options.columns_of(policy)
    sink: PartsOutput | SingleOutput
    if in_parts:
        part_size = part_size or PART_SIZE
        output_format = output_format or "parquet"
        job = {
            **_job(directory, prompts, embeddings, encoder, format),
            "prompt_column": prompt_column,
            "rule": rule,
            "costs": cost_options.plain(policy),
            "fallback": fallback,
            "keep_prompt": keep_prompt,
            "prefix": prefix,
            "part_size": part_size,
            "output_format": output_format,
        }
        if resume and job["input"]["bytes"] is None:
            raise ValueError(f"{prompts} is no regular file, so that no job on it can be resumed")
        sink = PartsOutput(
            target,
            job=job,
            part_size=part_size,
            format=output_format,
            prompt_column=written_prompt,
            prefix=prefix,
            further=further,
            resume=resume,
        )
    else:
        if rejected is None and on_error == "report" and target != "-":
            rejected = Path(f"{target}.rejected.jsonl")
        sink = SingleOutput(
            target,
            rejected=rejected,
            prompt_column=written_prompt,
            prefix=prefix,
            further=further,
        )

    def read(first_row: int = 0) -> Iterator[tuple[PromptBatch, Any]]:
        batches = read_prompts(
            prompts,
            prompt_column=prompt_column,
            batch=batch_size or (GIVEN_BATCH if embeddings is not None else ENCODED_BATCH),
            on_error="raise" if on_error == "raise" else "skip",
            format=format,
            first_row=first_row,
            part_size=part_size,
        )
        if embeddings is None:
            return ((batch, None) for batch in batches)
        return with_embeddings(batches, embeddings, first_row=first_row)

    skipped = _Skipped(listed=on_error == "report" and sink.rejected is None)
    seconds = 0.0
    n_before = sink.totals.prompts
    with sink:
        if not sink.complete:
            if sink.first_row:
                output.say(f"going on with record {sink.first_row:,} of the input")
            router = load_router(
                directory,
                encoder=encoder,
                embeddings=embeddings,
                device=device,
                threads=threads,
                fallback=fallback,
                route_on=routing_device(device),
            )
            policy = cost_options.within_budget(router, policy, prompts, read, chosen_rule)
            pairs = read(sink.first_row)
            with output.Progress("route", "prompts") as advance:
                for batch, decisions in route_batches(
                    router, pairs, rule=chosen_rule, policy=policy
                ):
                    sink.write(batch, decisions)
                    skipped.note(batch)
                    advance(len(batch.prompts), batch.share)
                seconds = advance.seconds
        elif not as_json:
            output.say(f"{target} is complete: there is nothing to do")
    n_now = sink.totals.prompts - n_before
    kept_in = str(sink.rejected) if sink.rejected is not None and sink.totals.rejected else None
    document = {
        "output": target,
        "rule": rule,
        "prompts": sink.totals.prompts,
        "seconds": seconds,
        "prompts_per_second": n_now / seconds if seconds else None,
        "models": dict(sink.totals.models.most_common()),
        "fallbacks": sink.totals.fallbacks,
        **cost_options.totals_of(policy, sink.totals),
        "skipped": sink.totals.rejected,
        "first_skipped": skipped.first,
        "rejected": kept_in,
        "parts": sink.n_parts if isinstance(sink, PartsOutput) else None,
    }
    if not skipped.listed:
        where = f", all in {kept_in}" if kept_in else ""
        output.say_skipped(skipped.first, sink.totals.rejected, where)
    if as_json:
        output.emit(document)
    else:
        _summary(document, n_now)
        cost_options.say_totals(policy, sink.totals)
    if on_error == "report" and sink.totals.rejected:
        raise typer.Exit(output.SOME_REJECTED)


def _names_directory(target: str) -> bool:
    path = Path(target)
    return target != "-" and (target.endswith("/") or not path.suffix or path.is_dir())


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
