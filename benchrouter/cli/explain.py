"""``benchrouter explain``: why a prompt goes where it goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import cost_options, options, output
from benchrouter.cli.encoding import load_all_embeddings, load_router

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Explanation

SUM = (
    "expected scores, rule auto: standing + pull of the votes, of their datasets, of the embedding"
)


def explain(
    directory: options.RouterDir,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads stdin.")],
    rule: Annotated[
        str,
        typer.Option(help="auto (expected score, as held-out records taught), mean, raw or s3."),
    ] = "auto",
    k: options.Neighbours = None,
    models: options.ModelsAtHand = None,
    cost_weight: cost_options.CostWeight = None,
    max_cost_usd: cost_options.MaxCost = None,
    within: cost_options.Within = None,
    min_success: cost_options.MinSuccess = None,
    costs: cost_options.Costs = None,
    output_tokens: cost_options.OutputTokens = None,
    prices: cost_options.Prices = None,
    tokens: cost_options.Tokens = None,
    embeddings: options.Embeddings = None,
    encoder: options.EncoderName = None,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Show the decision on one prompt and the benchmark records that voted.

    By the rule auto every model's expected score is its standing, and what the votes of the
    neighbours, their datasets and the prompt's embedding add; beside it stands its chance of a
    correct answer, with the 80 % interval of the success rate on prompts like this one.

    Shows what each model is expected to cost, where that is known, and decides under the options
    of costs, if there are any. For a budget, give the cost weight that `route` found.
    """
    chosen_rule = options.check_rule(rule)
    policy = cost_options.policy_of(
        cost_weight=cost_weight,
        max_cost_usd=max_cost_usd,
        within=within,
        min_success=min_success,
        costs=costs,
        output_tokens=output_tokens,
        prices=prices,
        tokens=None if tokens is None else "--tokens",
    )
    cost_options.check_rule(chosen_rule, k, policy)
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
    found = router.explain(
        text,
        embedding=None if given is None else given[0],
        rule=chosen_rule,
        k=k,
        policy=policy,
        tokens=tokens,
        models=options.listed(models),
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
    order = sorted(range(len(found.models)), key=lambda m: -found.scores[m])
    weighed: dict[str, list[Any]] = {}
    if found.standing is not None and found.pulls is not None:
        weighed["standing"] = found.standing.tolist()
        for view, pull in found.pulls.items():
            weighed[view] = [f"{value:+.3f}" for value in pull.tolist()]
    pulls = len(weighed)
    if found.cost_usd is not None:
        weighed["US$"] = [output.amount(value) for value in found.cost_usd.tolist()]
    for name, values in (("utility", found.utility), ("chance", found.chance)):
        if values is not None:
            weighed[name] = values.tolist()
    if found.chance_low is not None and found.chance_high is not None:
        ends = zip(found.chance_low.tolist(), found.chance_high.tolist(), strict=True)
        weighed["80 % interval"] = [f"{low:.3f} to {high:.3f}" for low, high in ends]
    output.table(
        f"scores, rule {found.rule}" if not pulls else SUM,
        ["model", "score", "neighbours", *weighed],
        [
            [
                *(found.models[m], float(found.scores[m]), int(found.support[m])),
                *(values[m] for values in weighed.values()),
            ]
            for m in order
        ],
        marked=order.index(found.models.index(found.model)),
        right=range(3, 3 + pulls),
    )
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


def _chance_of(found: Explanation) -> list[tuple[str, str]]:
    """Chance that the model chosen is right, where it is known."""
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
    """Say what a chance of being strange means for the decision."""
    side = "known" if strange <= 0.5 else "strange"
    return (
        f"{strange:.3f}, the chance that the prompt is of a kind that the benchmark lacks: it "
        f"counts as {side}"
    )


def right_models(scores: dict[str, float | None]) -> list[str]:
    """Models with a score; the score beside the name unless it is 1."""
    known = {m: s for m, s in scores.items() if s is not None and s > 0}
    return [m if s == 1 else f"{m} {s:.2f}" for m, s in known.items()]
