"""``benchrouter route --group-by COLUMN``: a model for every task of a file of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import load_router

if TYPE_CHECKING:
    from benchrouter.batch.prompts import PromptBatch
    from benchrouter.task import Score

OF_PROMPTS = (
    *("rule", "fallback", "cost_weight", "max_cost_usd", "budget_usd", "within", "min_success"),
    *("costs", "output_tokens", "rejected", "keep_prompt", "part_size", "output_format", "resume"),
    *("profile", "ray", "ray_actors"),
)


def check_options(
    context: typer.Context, group_by: str | None, prompt_column: str, prefix: str
) -> None:
    """Refuse options that say nothing about groups, and --score without them.

    Raises
    ------
    typer.BadParameter, ValueError
        Naming the option.
    """
    from benchrouter.batch.group_writer import check_column

    if group_by is None:
        if options.is_given(context, "score"):
            raise typer.BadParameter("--score needs --group-by; prompts one by one have --rule")
        return
    options.refuse_given(context, OF_PROMPTS, "is for prompts one by one, found it with --group-by")
    if group_by == prompt_column:
        raise typer.BadParameter(
            f"found {group_by!r}, the prompts' own column", param_hint="--group-by"
        )
    check_column(group_by, prefix)


def route_groups(
    directory: Path,
    prompts: str,
    target: str,
    *,
    column: str,
    score: Score,
    embeddings: Path | None,
    encoder: str | None,
    device: str,
    threads: int,
    batch_size: int,
    prompt_column: str,
    format: str | None,
    on_error: str,
    prefix: str,
    as_json: bool,
) -> None:
    """Choose a model for every group, and write one row a group; options as those of `route`."""
    options.check_format(format)
    options.check_on_error(on_error)
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.group_column import with_groups
    from benchrouter.batch.group_writer import group_table, open_table
    from benchrouter.batch.prompts import read_prompts

    batches = read_prompts(
        prompts, prompt_column=prompt_column, batch=batch_size, on_error=on_error, format=format
    )
    router = load_router(
        directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
    )
    pairs: Iterator[tuple[PromptBatch, Any]]
    if embeddings is None:
        pairs = ((batch, None) for batch in batches)
    else:
        pairs = with_embeddings(batches, embeddings)
    name = "standard input" if prompts == "-" else prompts
    skipped: list[str] = []
    n_skipped = 0

    def feed() -> Iterator[tuple[list[Any], list[str] | None, Any]]:
        nonlocal n_skipped
        for batch in with_groups(pairs, column, name=name, on_error=on_error):
            n_skipped += len(batch.skipped)
            skipped.extend(batch.skipped[: output.SHOWN_SKIPS - len(skipped)])
            if batch.prompts:
                given = batch.embeddings is not None
                yield batch.groups, None if given else batch.prompts, batch.embeddings
                advance(len(batch.prompts))

    with output.Progress("route", "prompts") as advance, open_table(target) as write:
        table = group_table(column, router.choose_groups(feed(), score=score), prefix=prefix)
        if table.num_rows == 0:
            output.say_skipped(skipped, n_skipped)
            raise ValueError(f"{name}: found no prompt with a group, expected at least one")
        write(table)
        seconds = advance.seconds
    models = Counter(table.column(f"{prefix}model").to_pylist())
    document = {
        "output": target,
        "score": score,
        "group_by": column,
        "groups": table.num_rows,
        "prompts": advance.done,
        "seconds": seconds,
        "prompts_per_second": advance.done / seconds if seconds else None,
        "models": dict(models.most_common()),
        "fallbacks": sum(table.column(f"{prefix}fallback").to_pylist()),
        "skipped": n_skipped,
        "first_skipped": skipped,
    }
    output.say_skipped(skipped, n_skipped)
    if as_json:
        output.emit(document)
    else:
        _summary(document)


def _summary(document: dict[str, Any]) -> None:
    n = document["groups"]
    output.say(
        f"routed {n:,} groups of {document['prompts']:,} prompts in {document['seconds']:.1f} s, "
        f"{document['prompts_per_second']:,.0f} prompts a second"
    )
    for model, count in document["models"].items():
        output.say(f"  {model}: {count:,} ({count / n:.1%})")
    output.say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")
