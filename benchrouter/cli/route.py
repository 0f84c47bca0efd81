"""``benchrouter route``: a model for every prompt."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
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
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Route on a Ray cluster (local: start one here), to a directory of Parquet parts. "
            "An actor has one GPU with --device cuda, and --threads CPUs (0: one).",
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
    fallback. It appears under its name only when it is complete. Embeddings are not kept: encode
    prompts that are routed again with `benchrouter encode`.
    """
    chosen_rule = options.check_rule(rule)
    options.check_format(format)
    options.check_on_error(on_error)
    if as_json and target == "-":
        raise typer.BadParameter("--json and --output - both want stdout")
    if ray is None and ray_actors is not None:
        raise typer.BadParameter("found no --ray ADDRESS", param_hint="--ray-actors")
    if ray is not None:
        from benchrouter.cli.route_ray import route_on_ray

        _report(
            route_on_ray(
                ray,
                directory,
                prompts,
                target,
                actors=ray_actors,
                embeddings=embeddings,
                encoder=encoder,
                device=device,
                threads=threads,
                batch=batch_size or (GIVEN_BATCH if embeddings is not None else ENCODED_BATCH),
                rule=rule,
                prompt_column=prompt_column,
                format=format,
                on_error=on_error,
                keep_prompt=keep_prompt,
                prefix=prefix,
            ),
            as_json,
        )
        return
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.prompts import read_prompts
    from benchrouter.batch.writers import open_decisions

    batches = read_prompts(
        prompts,
        prompt_column=prompt_column,
        batch=batch_size or (GIVEN_BATCH if embeddings is not None else ENCODED_BATCH),
        on_error=on_error,
        format=format,
    )
    router = load_router(
        directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
    )
    pairs: Iterator[tuple[PromptBatch, Any]]
    if embeddings is None:
        pairs = ((batch, None) for batch in batches)
    else:
        pairs = with_embeddings(batches, embeddings)
    counts: Counter[int] = Counter()
    skipped: list[str] = []
    n_skipped = n_fallback = 0
    waiting: deque[PromptBatch] = deque()

    def feed() -> Iterator[tuple[list[str] | None, Any]]:
        nonlocal n_skipped
        for batch, block in pairs:
            n_skipped += len(batch.skipped)
            skipped.extend(batch.skipped[: output.SHOWN_SKIPS - len(skipped)])
            if batch.prompts:
                waiting.append(batch)
                yield (batch.prompts, None) if block is None else (None, block)

    with (
        output.Progress("route", "prompts") as advance,
        open_decisions(
            target, prompt_column=prompt_column if keep_prompt else None, prefix=prefix
        ) as writer,
    ):
        for decisions in router.route_stream(feed(), rule=chosen_rule):
            writer.write(waiting.popleft(), decisions)
            counts.update(decisions.model.tolist())
            n_fallback += int(decisions.fallback.sum())
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
        "skipped": n_skipped,
        "first_skipped": skipped,
    }
    _report(document, as_json)


def _report(document: dict[str, Any], as_json: bool) -> None:
    output.say_skipped(document["first_skipped"], document["skipped"])
    if as_json:
        output.emit(document)
        return
    n = document["prompts"]
    output.say(
        f"routed {n:,} prompts in {document['seconds']:.1f} s"
        + (f", {document['prompts_per_second']:,.0f} a second" if n else "")
    )
    for model, count in document["models"].items():
        output.say(f"  {model}: {count:,} ({count / n:.1%})")
    if n:
        output.say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")
