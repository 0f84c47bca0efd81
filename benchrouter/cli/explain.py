"""``benchrouter explain``: why a prompt goes where it goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import load_all_embeddings, load_router

if TYPE_CHECKING:
    from benchrouter.decisions import Explanation


def explain(
    directory: options.RouterDir,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads stdin.")],
    rule: Annotated[str, typer.Option(help="mean, raw or s3.")] = "mean",
    embeddings: options.Embeddings = None,
    encoder: options.EncoderName = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Show the decision on one prompt and the benchmark records that voted."""
    chosen_rule = options.check_rule(rule)
    text = _of_stdin() if prompt == "-" else prompt
    if not text.strip():
        raise ValueError("found an empty prompt, expected text")
    given = None
    if embeddings is not None:
        given, _ = load_all_embeddings([embeddings])
        if len(given) != 1:
            raise ValueError(f"{embeddings} has {len(given)} embeddings, expected 1")
    router = load_router(
        directory, encoder=encoder, embeddings=embeddings, device=device, threads=threads
    )
    found = router.explain(text, embedding=None if given is None else given[0], rule=chosen_rule)
    if as_json:
        output.emit(found.to_dict())
    else:
        show_explanation(found)


def _of_stdin() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(
            f"standard input: found bytes that are not UTF-8 ({e.reason}), expected a prompt"
        ) from e
    return text.removesuffix("\n").removesuffix("\r")


def show_explanation(found: Explanation) -> None:
    """Print the decision, the scores of all models, and the neighbours that voted."""
    output.facts(
        [
            ("prompt", output.shorten(found.prompt or "", 100)),
            ("model", found.model),
            ("why", found.reason),
            ("distance u", f"{found.distance:.3f}"),
        ]
    )
    order = sorted(range(len(found.models)), key=lambda m: -found.scores[m])
    output.table(
        f"scores, rule {found.rule}",
        ["model", "score", "neighbours"],
        [[found.models[m], float(found.scores[m]), int(found.support[m])] for m in order],
        marked=order.index(found.models.index(found.model)),
    )
    output.table(
        "neighbours that voted",
        ["dataset", "sample", "similarity", "prompt", "right"],
        [
            [
                n.dataset,
                n.sample_id,
                float(n.similarity),
                output.shorten(n.prompt),
                ", ".join(right_models(n.scores)) or "none",
            ]
            for n in found.neighbours
        ],
        cut=["prompt"],
    )


def right_models(scores: dict[str, float | None]) -> list[str]:
    """Models with a score; the score beside the name unless it is 1."""
    known = {m: s for m, s in scores.items() if s is not None and s > 0}
    return [m if s == 1 else f"{m} {s:.2f}" for m, s in known.items()]
