"""``benchrouter route --group-by COLUMN``: a model for every task of a file of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
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
    *("costs", "output_tokens", "keep_prompt", "part_size", "output_format", "resume"),
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
    rejected: Path | None,
    prefix: str,
    as_json: bool,
) -> None:
    """Choose a model for every group, and write one row a group; options as those of `route`."""
    if rejected is not None and on_error == "raise":
        raise typer.BadParameter("--on-error raise keeps none", param_hint="--rejected")
    from benchrouter.batch.group_column import with_groups
    from benchrouter.batch.group_writer import group_table, open_table
    from benchrouter.batch.rejected import side_file

    name = "standard input" if prompts == "-" else prompts
    kept_on = "raise" if on_error == "raise" else "skip"
    if rejected is None and on_error == "report" and target != "-":
        rejected = Path(f"{target}.rejected.jsonl")
    skipped = output.Skips(listed=on_error == "report" and rejected is None)
    n_skipped = 0

    def feed() -> Iterator[tuple[list[Any], list[str] | None, Any]]:
        nonlocal n_skipped
        for batch in with_groups(pairs, column, name=name, on_error=kept_on):
            n_skipped += len(batch.rejected)
            skipped.note([record.message for record in batch.rejected])
            reject(batch.rejected)
            if batch.prompts:
                given = batch.embeddings is not None
                yield batch.groups, None if given else batch.prompts, batch.embeddings
            advance(len(batch.prompts), batch.share)

    with open_table(target) as write, side_file(rejected) as reject:
        router = load_router(
            directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
        )
        pairs = _pairs(prompts, prompt_column, batch_size, kept_on, format, embeddings)
        with output.Progress("route", "prompts") as advance:
            decisions = router.choose_groups(feed(), score=score)
            table = group_table(column, decisions, prefix=prefix)
            seconds = advance.seconds
        if table.num_rows == 0:
            output.say_skipped(skipped.first, n_skipped)
            raise ValueError(f"{name}: found no prompt with a group, expected at least one")
        write(table)
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
        "first_skipped": skipped.first,
        "rejected": str(rejected) if rejected is not None and n_skipped else None,
    }
    if not skipped.listed:
        where = f", all in {document['rejected']}" if document["rejected"] else ""
        output.say_skipped(skipped.first, n_skipped, where)
    if as_json:
        output.emit(document)
    else:
        _summary(document)
    if on_error == "report" and n_skipped:
        raise typer.Exit(output.SOME_REJECTED)


def _pairs(
    prompts: str,
    prompt_column: str,
    batch_size: int,
    on_error: str,
    format: str | None,
    embeddings: Path | None,
) -> Iterable[tuple[PromptBatch, Any]]:
    """Batches of the file, each with its embeddings where they are given."""
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.prompts import read_prompts

    batches = read_prompts(
        prompts, prompt_column=prompt_column, batch=batch_size, on_error=on_error, format=format
    )
    if embeddings is None:
        return ((batch, None) for batch in batches)
    return with_embeddings(batches, embeddings)


def _summary(document: dict[str, Any]) -> None:
    n = document["groups"]
    output.say(
        f"routed {n:,} groups of {document['prompts']:,} prompts in {document['seconds']:.1f} s, "
        f"{document['prompts_per_second']:,.0f} prompts a second"
    )
    for model, count in document["models"].items():
        output.say(f"  {model}: {count:,} ({count / n:.1%})")
    output.say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")
