"""``benchrouter route``: a model for every prompt, or for every group of them."""

from __future__ import annotations

from typing import Annotated

import typer

from benchrouter.cli import options
from benchrouter.cli.cost_options import CostOptions
from benchrouter.cli.encoding import EncodingOptions
from benchrouter.cli.route_file import route_prompts
from benchrouter.cli.route_groups import check_groups, route_groups
from benchrouter.cli.route_options import RayOptions, ReadingOptions, WritingOptions

NOT_ON_RAY = (
    *("k", "fallback", "profile", "cost_weight", "max_cost_usd", "budget_usd", "within"),
    *("min_success", "costs", "output_tokens", "prices", "tokens_column"),
)


@options.panelled
def route(
    context: typer.Context,
    directory: options.RouterDir,
    prompts: options.Prompts,
    *,
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
    by: options.RuleOptions,
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Model for prompts without evidence, instead of the router's."
        ),
    ] = None,
    costs: Annotated[CostOptions, "tokens"],
    encoding: Annotated[EncodingOptions, "cache", "cache_dir"],
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
    reading: ReadingOptions,
    writing: WritingOptions,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell where the time went, stage by stage.")
    ] = False,
    ray: RayOptions,
    as_json: options.Json = False,
) -> None:
    """Route every prompt to a model.

    The output holds the fields of the input, the prompt, and model, score, margin, distance,
    fallback; by the rule auto also chance, that the answer is correct; with an option of costs also
    cost_usd, what the model is expected to cost. A file appears under its name only when it is
    complete. A directory gets a file for every 100,000 records as soon as it is complete, and
    manifest.json, by which --resume goes on. Embeddings are not kept: encode prompts that are
    routed again with `benchrouter encode`.

    With --group-by the output holds a row for every group instead: COLUMN, n_prompts, model,
    score, runner_up, margin, expected_accuracy, its interval, fallback, reason and more; the
    options of costs weigh a group's score and mean cost, and a budget is for all groups together.
    """
    options.check_format(reading.format)
    options.one_of(reading.on_error, ("report", "skip", "raise"), "--on-error")
    if writing.rejected is not None and reading.on_error == "raise":
        raise typer.BadParameter("--on-error raise keeps none", param_hint="--rejected")
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    options.check_distinct_files(
        prompts=prompts, embeddings=encoding.embeddings, output=target, rejected=writing.rejected
    )
    if ray.ray is not None and group_by is None:
        options.refuse_given(context, NOT_ON_RAY, "does not go with --ray")
    check_groups(context, group_by, reading.prompt_column)
    if group_by is not None:
        route_groups(
            directory,
            *(prompts, target, group_by),
            score=options.check_score(score),
            models=options.listed(by.models),
            costs=costs,
            encoding=encoding,
            reading=reading,
            writing=writing,
            as_json=as_json,
        )
        return
    route_prompts(
        directory,
        *(prompts, target),
        by=by,
        fallback=fallback,
        costs=costs,
        encoding=encoding,
        reading=reading,
        writing=writing,
        profile=profile,
        ray=ray,
        as_json=as_json,
    )
