"""``benchrouter choose``: one model for a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import (
    cache_folder,
    encode_all,
    load_all_embeddings,
    load_router,
    read_all,
)

if TYPE_CHECKING:
    from benchrouter.decisions import TaskDecision


def choose(
    directory: options.RouterDir,
    prompts: options.Prompts,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Correctness (1, 0 or empty) of models on the first prompts: .csv, .jsonl or "
            ".parquet, a column a model, a row a prompt.",
        ),
    ] = None,
    score: Annotated[
        str, typer.Option(help="auto (expected accuracy, from all evidence), s1, s2 or s3.")
    ] = "auto",
    embeddings: options.Embeddings = None,
    encoder: options.EncoderName = None,
    cache: options.Cache = True,
    cache_dir: options.CacheDir = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    prompt_column: options.PromptColumn = "prompt",
    format: options.Format = None,
    on_error: options.OnError = "raise",
    as_json: options.Json = False,
) -> None:
    """Choose one model for a task, from some of its prompts."""
    chosen_score = options.check_score(score)
    options.check_format(format)
    options.check_on_error(on_error)
    if labels is not None and on_error == "skip":
        raise typer.BadParameter("--labels needs every prompt, so --on-error must be raise")
    from benchrouter.batch.labels import read_labels
    from benchrouter.batch.prompts import read_prompts

    texts, rows, n_records, skipped = read_all(
        read_prompts(prompts, prompt_column=prompt_column, on_error=on_error, format=format)
    )
    output.say_skipped(skipped)
    if not texts:
        raise ValueError(f"{prompts}: found no prompt, expected at least one")
    given = None
    if embeddings is not None:
        given, _ = load_all_embeddings([embeddings])
        if len(given) != n_records:
            raise ValueError(
                f"{embeddings} has {len(given)} embeddings, the prompts are {n_records}"
            )
        given = given[rows]
    router = load_router(
        directory,
        encoder=encoder,
        embeddings=embeddings,
        device=device,
        threads=threads,
        cache_dir=cache_folder(cache and embeddings is None, cache_dir),
    )
    known = None
    if labels is not None:
        known = read_labels(labels, router.models, texts, prompt_column=prompt_column)
    if given is None:
        given = encode_all(router.encoder, texts)
    decision = router.choose(texts, known, embeddings=given, score=chosen_score)
    if as_json:
        output.emit({**decision.to_dict(), "skipped": skipped})
    else:
        show_task(decision)


REPEATED = 0.8  # of the prompts; where fewer count, the user is told
NAMES = {"auto": "expected accuracy", "s1": "S1", "s2": "S2", "s3": "S3"}


def show_task(decision: TaskDecision, title: str = "") -> None:
    """Print a table of all models and the choice."""
    import numpy as np

    used = getattr(decision, decision.score)
    order = np.argsort(-used, kind="stable").tolist()  # NaN comes last
    chosen = decision.models.index(decision.model)
    rows: list[list[Any]] = [
        [
            decision.models[m],
            _plus_minus(float(decision.auto[m]), float(decision.auto_sd[m])),
            *(float(a[m]) for a in (decision.s1, decision.s2, decision.s3, decision.p_hat)),
            int(decision.support[m]),
            float(decision.standing[m]),
            output.amount(decision.params_b[m]),
            output.amount(decision.cost_usd[m]),
            output.amounts(decision.prices[m]),
        ]
        for m in order
    ]
    output.table(
        title or f"{decision.n_prompts:,} prompts, by {NAMES[decision.score]}",
        ["model", "accuracy", "S1", "S2", "S3", "p̂", "support", "standing", *output.MODEL_FACTS],
        rows,
        marked=order.index(chosen),
    )
    u = decision.benchmark_distances
    known = u[~np.isnan(u)]
    span = f"; the benchmark's own {known.min():.3f} to {known.max():.3f}" if len(known) else ""
    facts = [
        ("model", decision.model),
        ("why", decision.reason),
        ("expected accuracy", _expected(decision)),
        ("distance u", f"{decision.distance:.3f}{span}"),
    ]
    if decision.n_labels:
        facts.append(("labelled prompts", f"{decision.n_labels:,}"))
    if decision.warning:
        facts.append(("warning", decision.warning))
    output.facts(facts)


def _plus_minus(mean: float, sd: float) -> str:
    return f"{mean:.3f}" if sd != sd else f"{mean:.3f} ± {sd:.3f}"


def _expected(decision: TaskDecision) -> str:
    """Expected accuracy of the choice and its interval, or why there is none."""
    if decision.interval is None:
        return (
            f"{decision.expected_accuracy:.3f} (too few datasets in the benchmark for an interval)"
        )
    low, high = decision.interval
    unlabelled = decision.n_prompts - decision.n_labels
    on = f"{decision.n_prompts:,} prompts of the task"
    if 0 < unlabelled < decision.n_prompts:
        on = f"the {unlabelled:,} prompts without labels"
    if decision.n_effective < REPEATED * (unlabelled or decision.n_prompts):
        on += f" (many repeat: they tell as much as {decision.n_effective:,.0f})"
    return (
        f"{decision.expected_accuracy:.3f}; measured on {on}, with 80 % chance between "
        f"{low:.3f} and {high:.3f} (sampling error included)"
    )
