"""``benchrouter explain``: why a model is chosen for a prompt."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.cost_options import CostOptions
from benchrouter.cli.encoding import EncodingOptions, load_router

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Explanation

SUM = (
    "expected scores, rule auto: standing + pull of the votes, of their datasets, of the embedding"
)


@options.panelled
def explain(
    directory: options.RouterDir,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads stdin.")],
    *,
    by: options.RuleOptions,
    costs: Annotated[CostOptions, "budget_usd", "tokens_column"],
    encoding: Annotated[EncodingOptions, "cache", "cache_dir"],
    as_json: options.Json = False,
) -> None:
    """Show the decision on one prompt and the benchmark records that voted.

    By the rule auto every model's expected score is its standing, and what the votes of the
    neighbours, their datasets and the prompt's embedding add; beside it stands its chance of a
    correct answer, with the 80 % interval of the success rate on prompts like this one.

    Shows what each model is expected to cost, where that is known, and decides under the options
    of costs, if there are any. For a budget, give the cost weight that `route` found.
    """
    rule = by.checked()
    policy = costs.policy(rule, by.k, options.listed(by.models))
    text = _of_stdin() if prompt == "-" else prompt
    if not text.strip():
        raise ValueError("found an empty prompt, expected text")
    from benchrouter.embeddings.stored_stream import EmbeddingFile

    path = encoding.embeddings
    with nullcontext() if path is None else EmbeddingFile(path) as given:
        if given is not None and given.n_rows != 1:
            raise ValueError(f"{path} has {given.n_rows} embeddings, expected 1")
        router = load_router(directory, encoding, given)
        row = None if given is None else given.take(1)[0]
    found = router.explain(
        text,
        embedding=row,
        policy=policy,
        tokens=costs.tokens,
    )
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
    facts = [
        ("prompt", output.shorten(found.prompt or "", 100)),
        ("model", found.model),
        ("why", found.reason),
        *_chance_of(found),
        ("distance u", f"{found.distance:.3f}"),
    ]
    if found.strange is not None:
        facts.append(("strange", strange_in_words(found.strange)))
    if found.no_cost is not None:
        facts.append(("no cost", found.no_cost))
    output.facts(facts)
    _show_scores(found)
    more = found.n_voting - len(found.neighbours)
    output.table(
        "neighbours that voted" + (f", the nearest; {more:,} more voted" if more else ""),
        ["dataset", "sample", "similarity", "weight", "prompt", "right"],
        [
            [
                n.dataset,
                n.sample_id,
                float(n.similarity),
                float(n.weight),
                output.shorten(n.prompt),
                ", ".join(right_models(n.scores)) or "none",
            ]
            for n in found.neighbours
        ],
        cut=["prompt"],
    )


def _show_scores(found: Explanation) -> None:
    """Print the scores of all models, and their parts where these are known."""
    pulls = _pulls(found)
    columns = {**pulls, **_weighed(found)}
    order = sorted(range(len(found.models)), key=lambda m: -found.scores[m])
    output.table(
        SUM if pulls else f"scores, rule {found.rule}",
        ["model", "score", "neighbours", *columns],
        [
            [
                *(found.models[m], float(found.scores[m]), int(found.support[m])),
                *(values[m] for values in columns.values()),
            ]
            for m in order
        ],
        marked=order.index(found.models.index(found.model)),
        right=range(3, 3 + len(pulls)),
    )


def _pulls(found: Explanation) -> dict[str, list[Any]]:
    """Parts that add up to a score of the rule auto, by model."""
    if found.standing is None or found.pulls is None:
        return {}
    pulls = {view: [f"{v:+.3f}" for v in pull.tolist()] for view, pull in found.pulls.items()}
    return {"standing": found.standing.tolist(), **pulls}


def _weighed(found: Explanation) -> dict[str, list[Any]]:
    """Costs, utilities and chances, by model, where they are known."""
    weighed: dict[str, list[Any]] = {}
    if found.cost_usd is not None:
        weighed["US$"] = [output.amount(value) for value in found.cost_usd.tolist()]
    for name, values in (("utility", found.utility), ("chance", found.chance)):
        if values is not None:
            weighed[name] = values.tolist()
    if found.chance_low is not None and found.chance_high is not None:
        ends = zip(found.chance_low.tolist(), found.chance_high.tolist(), strict=True)
        weighed["80 % interval"] = [f"{low:.3f} to {high:.3f}" for low, high in ends]
    return weighed


def _chance_of(found: Explanation) -> list[tuple[str, str]]:
    """Chance that the chosen model is right, if it is known."""
    if found.chance is None:
        return []
    m = found.models.index(found.model)
    text = f"{found.chance[m]:.3f}"
    if found.chance_low is not None and found.chance_high is not None:
        text += (
            f"; of prompts like this one it answers {found.chance_low[m]:.3f} to "
            f"{found.chance_high[m]:.3f} correctly, with 80 % chance"
        )
    return [("chance of success", text)]


def strange_in_words(strange: float) -> str:
    """Explain the chance that a prompt is of a kind unknown to the benchmark."""
    side = "known" if strange <= 0.5 else "strange"
    return (
        f"{strange:.3f}, the chance that the prompt is of a kind that the benchmark lacks: it "
        f"counts as {side}"
    )


def right_models(scores: dict[str, float | None]) -> list[str]:
    """Models with a score; the score beside the name unless it is 1."""
    known = {m: s for m, s in scores.items() if s is not None and s > 0}
    return [m if s == 1 else f"{m} {s:.2f}" for m, s in known.items()]
