"""``benchrouter route``: prompts of a file to decisions, in one file or in parts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.encoding import load_router, routing_device
from benchrouter.prompts import PART_SIZE
from benchrouter.prompts.read_ahead import treated_beside
from benchrouter.prompts.timing import Stages, measuring, stage

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Decisions
    from benchrouter.decisions.policy import CostPolicy, Rule
    from benchrouter.decisions.written.parts import PartsOutput
    from benchrouter.decisions.written.single import SingleOutput
    from benchrouter.prompts.batches import PromptBatch
    from benchrouter.prompts.token_column import Counted


def route_file(
    directory: Path,
    prompts: str,
    target: str,
    *,
    rule: Rule,
    k: int | None,
    models: list[str] | None,
    policy: CostPolicy | None,
    tokens_column: str | None,
    fallback: str | None,
    embeddings: Path | None,
    encoder: str | None,
    device: str,
    threads: int,
    batch_size: int,
    prompt_column: str,
    format: str | None,
    on_error: str,
    rejected: Path | None,
    keep_prompt: bool,
    prefix: str,
    part_size: int | None,
    output_format: str | None,
    resume: bool,
    profile: bool,
    ray: str | None,
    ray_actors: int | None,
    as_json: bool,
) -> None:
    """Route every prompt of a file; the arguments are the options of the command.

    Raises
    ------
    typer.Exit
        With `output.SOME_REJECTED` where bad records were reported.
    """
    from benchrouter.cli.route_ray import check_ray, decided_on_ray
    from benchrouter.decisions.written.routed import route_batches
    from benchrouter.decisions.written.writers import CHANCE
    from benchrouter.embeddings.stored_stream import with_embeddings
    from benchrouter.prompts.batches import read_ahead, read_prompts
    from benchrouter.prompts.token_column import with_tokens

    if ray is not None:
        check_ray(prompts, target, device)
    kept_on = "raise" if on_error == "raise" else "skip"
    name = "standard input" if prompts == "-" else prompts

    def reading(first_row: int) -> dict[str, Any]:
        return {
            "prompt_column": prompt_column,
            "batch": batch_size,
            "on_error": kept_on,
            "format": format,
            "first_row": first_row,
            "part_size": part_size,
        }

    def read(first_row: int = 0) -> Generator[Counted, None, None]:
        batches = read_prompts(prompts, **reading(first_row))
        pairs = with_embeddings(batches, embeddings, first_row=first_row)
        return read_ahead(prompts, with_tokens(pairs, tokens_column, name=name, on_error=kept_on))

    def write(routed: tuple[PromptBatch, Decisions | None]) -> PromptBatch:
        with stage("write"):
            sink.write(*routed)
        return routed[0]

    seconds = 0.0
    stages: Stages | None = None
    written = {
        "prompt_column": prompt_column if keep_prompt else None,
        "prefix": prefix,
        "further": (*(CHANCE if rule == "auto" else ()), *cost_options.columns_of(policy)),
    }
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
            "k": k,
            "models": None if models is None else sorted(set(models)),
            "costs": cost_options.text_of(policy),
            "tokens_column": tokens_column,
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
    skipped = output.Skips(listed=on_error == "report" and sink.rejected is None)
    with sink, ExitStack() as held:
        n_before = sink.totals.prompts
        if not sink.complete:
            if ray is None:
                router = load_router(
                    directory,
                    encoder=encoder,
                    embeddings=embeddings,
                    device=device,
                    threads=threads,
                    fallback=fallback,
                    route_on=routing_device(device),
                )
                router.check_rule(rule, k, policy, models)
                policy = cost_options.within_budget(router, policy, prompts, read, rule, k, models)
                pairs = held.enter_context(closing(read(sink.first_row)))
                decided = route_batches(router, pairs, rule=rule, k=k, policy=policy, models=models)
            else:
                decided = decided_on_ray(
                    ray,
                    directory,
                    prompts,
                    read_prompts(prompts, **reading(sink.first_row)),
                    reading=reading(sink.first_row),
                    actors=ray_actors,
                    embeddings=embeddings,
                    encoder=encoder,
                    device=device,
                    threads=threads,
                    rule=rule,
                    models=models,
                )
            with (
                measuring() if profile else nullcontext() as stages,
                output.Progress("route", "prompts") as advance,
                closing(decided),
                closing(treated_beside(write, decided, name="write")) as done,
            ):
                for batch in done:
                    skipped.note([record.message for record in batch.rejected])
                    advance(len(batch), batch.share)
                seconds = advance.seconds
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
        "parts": sink.n_parts,
        "stages": None if stages is None else stages.seconds,
        "waited": None if stages is None else stages.waited,
    }
    skipped.say(sink.totals.rejected, kept_in)
    if as_json:
        output.emit(document)
    else:
        say_routed(document, n_now)
        cost_options.say_totals(policy, sink.totals)
    if stages is not None:
        _say_stages(stages, seconds)
    if on_error == "report" and sink.totals.rejected:
        raise typer.Exit(output.SOME_REJECTED)


def _say_stages(stages: Stages, seconds: float) -> None:
    """Tell where the time of routing went, on stderr."""
    # of given embeddings a GPU's thread encodes nothing, and is waited for all the same
    names = dict.fromkeys((*stages.seconds, *stages.waited))
    taken_by = {name: stages.seconds.get(name, 0.0) for name in names}
    for name, taken in {**taken_by, "rest": stages.rest(seconds)}.items():
        waited = stages.waited.get(name)
        beside = "" if waited is None else f"  beside the others, waited for {waited:.2f} s"
        output.say(f"  {name:<8} {taken:10.2f} s  {taken / max(seconds, 1e-9):6.1%}{beside}")


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
    from benchrouter.decisions.written.parts import FORMATS, PartsOutput

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
    from benchrouter.decisions.written.single import SingleOutput

    rejected = options.side_file_of(target, on_error, rejected)
    return SingleOutput(target, rejected=rejected, **written)


def _job(
    directory: Path, prompts: str, embeddings: Path | None, encoder: str | None, format: str | None
) -> dict[str, Any]:
    """Files that the answer depends on, by what is in them."""
    from benchrouter.decisions.written.manifest import mark_of
    from benchrouter.prompts.batches import format_of
    from benchrouter.scores.saved import read_description

    description = read_description(directory)
    return {
        "input": mark_of(prompts),
        "format": format or (None if prompts == "-" else format_of(prompts)),
        "router": description["sha256"],
        "embeddings": None if embeddings is None else mark_of(embeddings),
        # an encoder that the router records may stand anywhere: it is compared when it is loaded
        "encoder": encoder if description["encoder"] is None else None,
    }


def say_routed(document: dict[str, Any], n_now: int) -> None:
    """Sum up on stderr what was routed.

    Parameters
    ----------
    document : dict
        What --json prints.
    n_now : int
        Prompts that this run routed; the document counts those of earlier runs too.
    """
    n = document["prompts"]
    earlier = "" if n == n_now else f", {n:,} in all"
    output.say(
        f"routed {n_now:,} prompts in {document['seconds']:.1f} s"
        + (f", {document['prompts_per_second']:,.0f} a second" if n_now else "")
        + earlier
    )
    output.say_models(document, n)
