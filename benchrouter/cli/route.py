"""``benchrouter route``: a model for every prompt."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.encoding import load_router

if TYPE_CHECKING:
    from benchrouter.batch.prompts import PromptBatch

GIVEN_BATCH = 8192
ENCODED_BATCH = 1024  # some seconds on a CPU, so that progress is seen


def route(
    directory: options.RouterDir,
    prompts: options.Prompts,
    target: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Decisions: .jsonl, .parquet or .csv; - writes JSONL to stdout.",
        ),
    ],
    rule: Annotated[str, typer.Option(help="mean, raw or s3.")] = "mean",
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
    on_error: options.OnError = "raise",
    keep_prompt: Annotated[
        bool, typer.Option("--prompt/--no-prompt", help="Write the prompts too.")
    ] = True,
    prefix: Annotated[
        str,
        typer.Option(help="Put before model, score, margin, distance and fallback in the output."),
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Route every prompt to a model.

    The output holds the fields of the input, the prompt, and model, score, margin, distance,
    fallback; with an option of costs also cost_usd, what the model is expected to cost. It appears
    under its name only when it is complete. Embeddings are not kept: encode prompts that are routed
    again with `benchrouter encode`.
    """
    chosen_rule = options.check_rule(rule)
    options.check_format(format)
    options.check_on_error(on_error)
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
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
    from benchrouter.batch.prompts import read_prompts
    from benchrouter.batch.writers import open_decisions

    def read() -> Iterator[tuple[PromptBatch, Any]]:
        batches = read_prompts(
            prompts,
            prompt_column=prompt_column,
            batch=batch_size or (GIVEN_BATCH if embeddings is not None else ENCODED_BATCH),
            on_error=on_error,
            format=format,
        )
        if embeddings is None:
            return ((batch, None) for batch in batches)
        return with_embeddings(batches, embeddings)

    pairs = read()
    router = load_router(
        directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
    )
    policy = cost_options.within_budget(router, policy, prompts, read, chosen_rule)
    spending = cost_options.Spending(policy)
    counts: Counter[int] = Counter()
    skipped: list[str] = []
    n_skipped = n_fallback = 0
    waiting: deque[PromptBatch] = deque()

    def feed() -> Iterator[tuple[list[str], Any]]:
        nonlocal n_skipped
        for batch, block in pairs:
            n_skipped += len(batch.skipped)
            skipped.extend(batch.skipped[: output.SHOWN_SKIPS - len(skipped)])
            if batch.prompts:
                waiting.append(batch)
                yield batch.prompts, block

    with (
        output.Progress("route", "prompts") as advance,
        open_decisions(
            target,
            prompt_column=prompt_column if keep_prompt else None,
            prefix=prefix,
            further=cost_options.columns_of(policy),
        ) as writer,
    ):
        for decisions in router.route_stream(feed(), rule=chosen_rule, policy=policy):
            writer.write(waiting.popleft(), decisions)
            counts.update(decisions.model.tolist())
            n_fallback += int(decisions.fallback.sum())
            spending.add(decisions)
            advance(len(decisions))
        seconds = advance.seconds
    n = sum(counts.values())
    document = {
        "output": target,
        "rule": rule,
        "prompts": n,
        "seconds": seconds,
        "prompts_per_second": n / seconds if seconds else None,
        "models": {router.models[m]: c for m, c in counts.most_common()},
        "fallbacks": n_fallback,
        **spending.document(),
        "skipped": n_skipped,
        "first_skipped": skipped,
    }
    output.say_skipped(skipped, n_skipped)
    if as_json:
        output.emit(document)
    else:
        _summary(document)
        spending.say()


def _summary(document: dict[str, Any]) -> None:
    n = document["prompts"]
    output.say(
        f"routed {n:,} prompts in {document['seconds']:.1f} s"
        + (f", {document['prompts_per_second']:,.0f} a second" if n else "")
    )
    for model, count in document["models"].items():
        output.say(f"  {model}: {count:,} ({count / n:.1%})")
    if n:
        output.say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")
