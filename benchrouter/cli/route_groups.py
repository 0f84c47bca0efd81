"""``benchrouter route --group-by COLUMN``: a model for every task of a file of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.encoding import load_router

if TYPE_CHECKING:
    import pyarrow as pa

    from benchrouter.decisions.policy import CostPolicy
    from benchrouter.decisions.task import Score
    from benchrouter.decisions.written.manifest import Totals

OF_PROMPTS = (
    *("rule", "k", "fallback", "keep_prompt", "part_size"),
    *("output_format", "resume", "profile", "ray", "ray_actors"),
)


def check_options(
    context: typer.Context,
    group_by: str | None,
    prompt_column: str,
    prefix: str,
    policy: CostPolicy | None,
) -> None:
    """Refuse options that say nothing about groups, and --score without them.

    Raises
    ------
    typer.BadParameter, ValueError
        Naming the option.
    """
    from benchrouter.decisions.written.group_writer import check_column

    if group_by is None:
        if options.is_given(context, "score"):
            raise typer.BadParameter("--score needs --group-by; prompts one by one have --rule")
        return
    options.refuse_given(context, OF_PROMPTS, "is for prompts one by one, found it with --group-by")
    if group_by == prompt_column:
        raise typer.BadParameter(
            f"found {group_by!r}, the prompts' own column", param_hint="--group-by"
        )
    check_column(group_by, prefix, cost_options.columns_of(policy))


def route_groups(
    directory: Path,
    prompts: str,
    target: str,
    *,
    column: str,
    score: Score,
    models: list[str] | None,
    policy: CostPolicy | None,
    tokens_column: str | None,
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
    from benchrouter.decisions.written.group_writer import group_table, open_table
    from benchrouter.embeddings.stored_stream import with_embeddings
    from benchrouter.prompts.batches import read_ahead, read_prompts
    from benchrouter.prompts.group_column import with_groups
    from benchrouter.prompts.rejected import side_file
    from benchrouter.prompts.token_column import with_tokens

    name = "standard input" if prompts == "-" else prompts
    kept_on = "raise" if on_error == "raise" else "skip"
    rejected = options.side_file_of(target, on_error, rejected)
    skipped = output.Skips(listed=on_error == "report" and rejected is None)
    n_skipped = 0

    def feed() -> Iterator[tuple[list[Any], list[str] | None, Any, Any]]:
        nonlocal n_skipped
        for batch in with_groups(pairs, column, name=name, on_error=kept_on):
            n_skipped += len(batch.rejected)
            skipped.note([record.message for record in batch.rejected])
            reject(batch.rejected)
            if batch.prompts:
                needed = batch.embeddings is None or policy is not None  # which may count tokens
                texts = batch.prompts if needed else None
                yield batch.groups, texts, batch.embeddings, batch.tokens
            advance(len(batch.prompts), batch.share)

    with open_table(target) as write, side_file(rejected) as reject:
        router = load_router(
            directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
        )
        batches = read_prompts(
            prompts, prompt_column=prompt_column, batch=batch_size, on_error=kept_on, format=format
        )
        with (
            output.Progress("route", "prompts") as advance,
            closing(
                read_ahead(
                    prompts,
                    with_tokens(
                        with_embeddings(batches, embeddings),
                        tokens_column,
                        name=name,
                        on_error=kept_on,
                    ),
                )
            ) as pairs,
        ):
            decisions = router.choose_groups(feed(), score=score, models=models, policy=policy)
            further = cost_options.columns_of(policy)
            table = group_table(column, decisions, prefix=prefix, further=further)
            seconds = advance.seconds
        if table.num_rows == 0:
            output.say_skipped(skipped.first, n_skipped)
            raise ValueError(f"{name}: found no prompt with a group, expected at least one")
        write(table)
    chosen = Counter(table.column(f"{prefix}model").to_pylist())
    totals = _totals(table, prefix, further)
    document = {
        "output": target,
        "score": score,
        "group_by": column,
        "groups": table.num_rows,
        "prompts": advance.done,
        "seconds": seconds,
        "prompts_per_second": advance.done / seconds if seconds else None,
        "models": dict(chosen.most_common()),
        "fallbacks": sum(table.column(f"{prefix}fallback").to_pylist()),
        **cost_options.totals_of(policy, totals),
        "skipped": n_skipped,
        "first_skipped": skipped.first,
        "rejected": str(rejected) if rejected is not None and n_skipped else None,
    }
    skipped.say(n_skipped, document["rejected"])
    if as_json:
        output.emit(document)
    else:
        _summary(document)
        cost_options.say_totals(policy, totals, "groups")
    if on_error == "report" and n_skipped:
        raise typer.Exit(output.SOME_REJECTED)


def _totals(table: pa.Table, prefix: str, further: Sequence[str]) -> Totals:
    """What all groups are expected to cost, where the table tells."""
    from benchrouter.decisions.written.manifest import Totals

    def column(name: str) -> list[Any]:
        return table.column(f"{prefix}{name}").to_pylist()

    totals = Totals(prompts=sum(column("n_prompts")))
    if "cost_usd" in further:
        pairs = zip(column("n_prompts"), column("cost_usd"), strict=True)
        totals.cost_usd = sum(n * cost for n, cost in pairs)
    if "over_limit" in further:
        totals.over_limit = sum(column("over_limit"))
    return totals


def _summary(document: dict[str, Any]) -> None:
    n = document["groups"]
    output.say(
        f"routed {n:,} groups of {document['prompts']:,} prompts in {document['seconds']:.1f} s, "
        f"{document['prompts_per_second']:,.0f} prompts a second"
    )
    output.say_models(document, n)
