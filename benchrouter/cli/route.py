"""``benchrouter route``: a model for every prompt, or for every group of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchrouter.cli import cost_options, options
from benchrouter.cli.route_file import route_file
from benchrouter.cli.route_groups import check_options, route_groups
from benchrouter.prompts import PART_SIZE

GIVEN_BATCH = 8192
ENCODED_BATCH = 1024  # some seconds on a CPU, so that progress is seen
NOT_ON_RAY = (
    *("k", "fallback", "profile", "cost_weight", "max_cost_usd", "budget_usd", "within"),
    *("min_success", "costs", "output_tokens", "prices", "tokens_column"),
)


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
    rule: Annotated[
        str,
        typer.Option(help="auto (expected score, as held-out records taught), mean, raw or s3."),
    ] = "auto",
    k: options.Neighbours = None,
    models: options.ModelsAtHand = None,
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
    prices: cost_options.Prices = None,
    tokens_column: cost_options.TokensColumn = None,
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
        typer.Option(help="Put before model, score and the other results in the output."),
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
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell where the time went, stage by stage.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Route on a Ray cluster (local: start one here; auto: join the one that runs). An "
            "actor has one GPU with --device cuda, and --threads CPUs (0: one).",
        ),
    ] = None,
    ray_actors: Annotated[
        int | None,
        typer.Option(min=1, help="Actors on the cluster; as many as there is room for by default."),
    ] = None,
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
    options.check_format(format)
    options.one_of(on_error, ("report", "skip", "raise"), "--on-error")
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    among = options.listed(models)
    options.check_distinct_files(
        prompts=prompts, embeddings=embeddings, output=target, rejected=rejected
    )
    batch_size = batch_size or (ENCODED_BATCH if embeddings is None else GIVEN_BATCH)
    if ray is not None and group_by is None:
        options.refuse_given(context, NOT_ON_RAY, "does not go with --ray")
    policy = cost_options.policy_of(
        cost_weight=cost_weight,
        max_cost_usd=max_cost_usd,
        budget_usd=budget_usd,
        within=within,
        min_success=min_success,
        costs=costs,
        output_tokens=output_tokens,
        prices=prices,
        tokens=None if tokens_column is None else "--tokens-column",
    )
    check_options(context, group_by, prompt_column, prefix, policy)
    if group_by is not None:
        route_groups(
            directory,
            prompts,
            target,
            column=group_by,
            score=options.check_score(score),
            models=among,
            policy=policy,
            tokens_column=tokens_column,
            embeddings=embeddings,
            encoder=encoder,
            device=device,
            threads=threads,
            batch_size=batch_size,
            prompt_column=prompt_column,
            format=format,
            on_error=on_error,
            rejected=rejected,
            prefix=prefix,
            as_json=as_json,
        )
        return
    chosen_rule = options.check_rule(rule)
    cost_options.check_rule(chosen_rule, k, policy)
    if ray is None and ray_actors is not None:
        raise typer.BadParameter("found no --ray ADDRESS", param_hint="--ray-actors")
    route_file(
        directory,
        prompts,
        target,
        rule=chosen_rule,
        k=k,
        models=among,
        policy=policy,
        tokens_column=tokens_column,
        fallback=fallback,
        embeddings=embeddings,
        encoder=encoder,
        device=device,
        threads=threads,
        batch_size=batch_size,
        prompt_column=prompt_column,
        format=format,
        on_error=on_error,
        rejected=rejected,
        keep_prompt=keep_prompt,
        prefix=prefix,
        part_size=part_size,
        output_format=output_format,
        resume=resume,
        profile=profile,
        ray=ray,
        ray_actors=ray_actors,
        as_json=as_json,
    )
