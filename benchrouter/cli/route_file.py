"""``benchrouter route``: a model for every prompt of a file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.cost_options import CostOptions
from benchrouter.cli.encoding import EncodingOptions, load_router, routing_device
from benchrouter.cli.route_options import RayOptions, ReadingOptions, WritingOptions
from benchrouter.prompts.timing import Stages, measuring

if TYPE_CHECKING:
    from benchrouter.decisions.policy import Policy
    from benchrouter.decisions.written import RouteJob, Summary, Writing
    from benchrouter.decisions.written.job import Routed


def route_prompts(
    directory: Path,
    prompts: str,
    target: str,
    *,
    by: options.RuleOptions,
    fallback: str | None,
    costs: CostOptions,
    encoding: EncodingOptions,
    reading: ReadingOptions,
    writing: WritingOptions,
    profile: bool,
    ray: RayOptions,
    as_json: bool,
) -> None:
    """Route every prompt of a file; the arguments are the options of the command.

    Raises
    ------
    typer.Exit
        With `output.SOME_REJECTED` where bad records were reported.
    """
    from benchrouter.decisions.written import RouteJob
    from benchrouter.scores.saved import read_description

    rule = by.checked()
    policy = costs.policy(rule, by.k, options.listed(by.models))
    ray.check(prompts, target, encoding.device)
    if costs.budget_usd is not None and prompts == "-":
        raise typer.BadParameter(
            "found stdin, expected a file, as the prompts are read twice", param_hint="--budget-usd"
        )
    written = _writing(target, reading.on_error, writing)
    description = read_description(directory)
    unrecorded = encoding.encoder if description["encoder"] is None else None
    stages: Stages | None = None
    with (
        RouteJob(
            *(prompts, target, policy),
            reading=reading.reading(encoding.embeddings, costs.tokens_column),
            writing=written,
            identity={
                "router": description["sha256"],
                "encoder": unrecorded,
                "fallback": fallback,
            },
        ) as job,
        output.PromptProgress(listed=reading.is_listed(target, written.rejected)) as progress,
    ):
        if job.complete:
            output.say(f"{target} is complete: there is nothing to do")
        else:
            if job.first_row:
                output.say(f"going on behind {job.first_row:,} records in {job.n_parts:,} parts")
            routed = _routed(job, directory, policy, fallback, encoding, ray, progress)
            with measuring() if profile else nullcontext() as stages:
                job.write(routed, progress)
    done = job.summary()
    document = _document(target, rule, done, progress.first, stages)
    progress.say(done.totals.rejected, document["rejected"])
    if as_json:
        output.emit(document)
    else:
        _say_routed(document, done.n_now)
        cost_options.say_totals(done.policy, done.totals)
    if stages is not None:
        _say_stages(stages, done.seconds)
    if reading.on_error == "report" and done.totals.rejected:
        raise typer.Exit(output.SOME_REJECTED)


def _routed(
    job: RouteJob,
    directory: Path,
    policy: Policy,
    fallback: str | None,
    encoding: EncodingOptions,
    ray: RayOptions,
    progress: output.PromptProgress,
) -> Generator[Routed, None, None]:
    """Decisions on what is left to do, made here or on a cluster."""
    if ray.ray is None:
        router = load_router(
            *(directory, encoding, job.source.embeddings),
            fallback=fallback,
            route_on=routing_device(encoding.device),
        )
        return job.route(router, progress)
    from benchrouter.cli.route_ray import decided_on_ray

    return decided_on_ray(
        *(ray.ray, directory, job),
        policy=policy,
        encoding=encoding,
        actors=ray.ray_actors,
    )


def _writing(target: str, on_error: str, given: WritingOptions) -> Writing:
    """Options of the output, those refused that are for an output of another kind."""
    from benchrouter.decisions.written import Writing
    from benchrouter.decisions.written.job import names_directory
    from benchrouter.decisions.written.parts import FORMATS

    rejected = given.rejected
    if not names_directory(target):
        if given.resume or given.part_size is not None or given.output_format is not None:
            raise typer.BadParameter(
                f"--resume, --part-size and --output-format are for a directory, found {target}",
                param_hint="--output",
            )
        rejected = options.side_file_of(target, on_error, rejected)
    elif rejected is not None:
        raise typer.BadParameter("a directory has its own folder of them", param_hint="--rejected")
    options.one_of(given.output_format or "parquet", FORMATS, "--output-format")
    return Writing(
        keep_prompt=given.keep_prompt,
        prefix=given.prefix,
        rejected=rejected,
        part_size=given.part_size,
        part_format=given.output_format,
        resume=given.resume,
    )


def _document(
    target: str, rule: str, done: Summary, first: list[str], stages: Stages | None
) -> dict[str, Any]:
    """What --json prints."""
    totals = done.totals
    return {
        "output": target,
        "rule": rule,
        "prompts": totals.prompts,
        "seconds": done.seconds,
        "prompts_per_second": done.n_now / done.seconds if done.seconds else None,
        "models": dict(totals.models.most_common()),
        "fallbacks": totals.fallbacks,
        **cost_options.totals_of(done.policy, totals),
        "skipped": totals.rejected,
        "first_skipped": first,
        "rejected": str(done.rejected) if done.rejected is not None and totals.rejected else None,
        "parts": done.n_parts,
        "stages": None if stages is None else stages.seconds,
        "waited": None if stages is None else stages.waited,
    }


def _say_routed(document: dict[str, Any], n_now: int) -> None:
    """Sum up on stderr what this run routed; the document counts earlier runs too."""
    n = document["prompts"]
    speed = f", {document['prompts_per_second']:,.0f} a second" if n_now else ""
    earlier = "" if n == n_now else f", {n:,} in all"
    output.say(f"routed {n_now:,} prompts in {document['seconds']:.1f} s{speed}{earlier}")
    output.say_models(document, n)


def _say_stages(stages: Stages, seconds: float) -> None:
    """Tell where the time of routing went, on stderr."""
    # of given embeddings a GPU's thread encodes nothing, and is waited for all the same
    names = dict.fromkeys((*stages.seconds, *stages.waited))
    taken_by = {name: stages.seconds.get(name, 0.0) for name in names}
    for name, taken in {**taken_by, "rest": stages.rest(seconds)}.items():
        waited = stages.waited.get(name)
        beside = "" if waited is None else f"  beside the others, waited for {waited:.2f} s"
        output.say(f"  {name:<8} {taken:10.2f} s  {taken / max(seconds, 1e-9):6.1%}{beside}")
