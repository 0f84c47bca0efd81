"""``benchrouter route --group-by COLUMN``: a model for every task of a file of many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.cost_options import CostOptions
from benchrouter.cli.encoding import EncodingOptions, load_router
from benchrouter.cli.route_options import ReadingOptions, WritingOptions

if TYPE_CHECKING:
    from benchrouter.decisions.task import Score

OF_PROMPTS = (
    *("rule", "k", "fallback", "keep_prompt", "part_size"),
    *("output_format", "resume", "profile", "ray", "ray_actors"),
)


def check_groups(context: typer.Context, group_by: str | None, prompt_column: str) -> None:
    """Refuse options that mean nothing for groups, and --score without them."""
    if group_by is None:
        if options.is_given(context, "score"):
            raise typer.BadParameter("--score needs --group-by; prompts one by one have --rule")
        return
    options.refuse_given(context, OF_PROMPTS, "is for prompts one by one, found it with --group-by")
    if group_by == prompt_column:
        raise typer.BadParameter(
            f"found {group_by!r}, the prompts' own column", param_hint="--group-by"
        )


def route_groups(
    directory: Path,
    prompts: str,
    target: str,
    column: str,
    *,
    score: Score,
    models: list[str] | None,
    costs: CostOptions,
    encoding: EncodingOptions,
    reading: ReadingOptions,
    writing: WritingOptions,
    as_json: bool,
) -> None:
    """Choose a model for every group, and write one row a group; options as those of `route`."""
    from benchrouter.decisions.written import GroupJob

    policy = costs.policy(models=models)
    rejected = options.side_file_of(target, reading.on_error, writing.rejected)
    with (
        GroupJob(
            *(prompts, target, column),
            reading=reading.reading(encoding.embeddings, costs.tokens_column),
            policy=policy,
            prefix=writing.prefix,
            rejected=rejected,
        ) as job,
        output.PromptProgress(listed=reading.is_listed(target, rejected)) as progress,
    ):
        router = load_router(directory, encoding, job.source.embeddings)
        done = job.run(router, score, progress)
    totals, seconds = done.totals, done.seconds
    document = {
        "output": target,
        "score": score,
        "group_by": column,
        "groups": done.n_groups,
        "prompts": totals.prompts,
        "seconds": seconds,
        "prompts_per_second": totals.prompts / seconds if seconds else None,
        "models": dict(totals.models.most_common()),
        "fallbacks": totals.fallbacks,
        **cost_options.totals_of(policy, totals),
        "skipped": totals.rejected,
        "first_skipped": progress.first,
        "rejected": str(rejected) if rejected is not None and totals.rejected else None,
    }
    progress.say(totals.rejected, document["rejected"])
    if as_json:
        output.emit(document)
    else:
        output.say(
            f"routed {done.n_groups:,} groups of {totals.prompts:,} prompts in {seconds:.1f} s, "
            f"{document['prompts_per_second']:,.0f} prompts a second"
        )
        output.say_models(document, done.n_groups)
        cost_options.say_totals(policy, totals, "groups")
    if reading.on_error == "report" and totals.rejected:
        raise typer.Exit(output.SOME_REJECTED)
