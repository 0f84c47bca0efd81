"""Options by which cost counts, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from benchrouter.cli import options, output

if TYPE_CHECKING:
    from benchrouter.decisions.policy import CostPolicy
    from benchrouter.decisions.written.manifest import Totals
    from benchrouter.prompts.token_column import Counted
    from benchrouter.router import Router

CostWeight = Annotated[
    float | None,
    typer.Option(metavar="λ", help="The largest score − λ·cost wins; in score per US$, inf too."),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost-usd",
        metavar="US$",
        help="Models expected to cost more on a prompt are not allowed on it; where none is, the "
        "cheapest is taken.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget-usd",
        metavar="US$",
        help="For all prompts together. Prompt by prompt, λ is found for it, which reads the "
        "prompts twice.",
    ),
]
Within = Annotated[
    str | None,
    typer.Option(
        metavar="ε|auto",
        help="The cheapest model whose score is at least the best − ε; auto: the difference that "
        "held-out records cannot tell from none.",
    ),
]
MinSuccess = Annotated[
    float | None,
    typer.Option(
        metavar="τ",
        help="The cheapest model whose calibrated chance of a correct answer exceeds τ, else the "
        "best.",
    ),
]
Costs = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Expected costs by: records (those of the neighbours), models (means), prices "
        "(× tokens; takes --output-tokens), or auto: prices where --prices or a count of tokens is "
        "given, else the first of these that is known.",
    ),
]
OutputTokens = Annotated[
    float | None,
    typer.Option(metavar="N", help="Expected tokens of an answer, where costs are by prices."),
]

Prices = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="US$ per million tokens of models, in place of the router's: .json "
        "{MODEL: [IN, OUT]}, or .csv with model, input_usd_per_million_tokens, "
        "output_usd_per_million_tokens.",
    ),
]
TokensColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Field of every record that counts the tokens of its prompt, for costs by prices; "
        "otherwise a fourth of the prompt's bytes.",
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Tokens of the prompt, for costs by prices; otherwise a fourth of its bytes.",
    ),
]


def policy_of(
    *,
    cost_weight: float | None,
    max_cost_usd: float | None,
    budget_usd: float | None = None,
    within: str | None,
    min_success: float | None,
    costs: str | None,
    output_tokens: float | None,
    prices: Path | None,
    tokens: str | None,
) -> CostPolicy | None:
    """Policy of the options; None where none of them is given. Contradictions are wrong usage.

    `tokens` is the option that tells the tokens of prompts, where it is given: it asks for costs by
    prices, and so do `prices`.
    """
    given: dict[str, Any] = {
        "cost_weight": cost_weight,
        "max_cost_usd": max_cost_usd,
        "budget_usd": budget_usd,
        "within": _within(within),
        "min_success": min_success,
        "output_tokens": output_tokens,
    }
    by_prices = [option for option in ("--prices" if prices else None, tokens) if option]
    if costs is None and not by_prices and all(value is None for value in given.values()):
        return None
    from benchrouter.decisions.policy import OBJECTIVES, SOURCES, CostPolicy

    options.one_of(costs or "auto", SOURCES, "--costs")
    rivals = [_option(name) for name in OBJECTIVES if given[name] is not None]
    if len(rivals) > 1:
        raise typer.BadParameter(
            f"found {' and '.join(rivals)}, expected at most one of "
            f"{', '.join(map(_option, OBJECTIVES))}"
        )
    for name, value in given.items():
        try:
            CostPolicy(**{name: value})
        except ValueError as e:
            found = str(e).removeprefix(f"{name} ")
            raise typer.BadParameter(found, param_hint=_option(name)) from None
    if by_prices and costs not in (None, "auto", "prices"):
        raise typer.BadParameter(
            f"found {costs}, expected prices, which {by_prices[0]} is for", param_hint="--costs"
        )
    source: Literal["auto", "records", "models", "prices"] = costs or "auto"  # type: ignore[assignment]
    if prices is not None:
        from benchrouter.tables.layouts.prices import read_prices

        given["prices"] = read_prices(prices)
    return CostPolicy(costs="prices" if by_prices else source, **given)


def _within(text: str | None) -> float | str | None:
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"found {text!r}, expected a number or auto", param_hint="--within"
        ) from None


def check_rule(
    rule: Literal["auto", "mean", "raw", "s3"], k: int | None, policy: CostPolicy | None
) -> None:
    """Refuse what does not go with a rule."""
    if rule == "auto" and k is not None:
        raise typer.BadParameter(
            f"found {k} with the rule auto, which has the number of neighbours that held-out "
            "records chose; it is for --rule mean, raw or s3",
            param_hint="--k",
        )
    if rule != "auto" and policy is not None and policy.within == "auto":
        raise typer.BadParameter(
            f"found auto with the rule {rule}, expected a number; auto is for --rule auto",
            param_hint="--within",
        )


def within_budget(
    router: Router,
    policy: CostPolicy | None,
    prompts: str,
    batches: Callable[[], Generator[Counted, None, None]],
    rule: Literal["auto", "mean", "raw", "s3"],
    k: int | None = None,
    models: list[str] | None = None,
) -> CostPolicy | None:
    """Turn a budget into the cost weight that keeps to it, by reading the prompts once.

    Parameters
    ----------
    router : Router
    policy : CostPolicy or None
        Returned as it is where it has no budget.
    prompts : str
        Name of their file; - is stdin, which can be read only once.
    batches : callable
        Begins to read the prompts, with their embeddings and tokens, if there are any.
    rule : "auto", "mean", "raw" or "s3"
    k : int, optional
    models : list of str, optional
        Models that may be chosen.

    Returns
    -------
    CostPolicy or None
    """
    if policy is None or policy.budget_usd is None:
        return policy
    if prompts == "-":
        raise typer.BadParameter(
            "found stdin, expected a file, as the prompts are read twice", param_hint="--budget-usd"
        )
    with (
        output.Progress("find the cost weight", "prompts") as advance,
        closing(batches()) as pairs,
    ):

        def read() -> Iterator[tuple[list[str], Any, Any]]:
            for batch, rows, tokens in pairs:
                if batch.prompts:
                    yield batch.prompts, rows, tokens
                    advance(len(batch.prompts))

        cost_weight = router.find_cost_weight(read(), policy, rule=rule, k=k, models=models)
    return replace(policy, budget_usd=None, cost_weight=cost_weight)


def columns_of(policy: CostPolicy | None) -> tuple[str, ...]:
    """Attributes of the decisions that are written beside the usual ones."""
    if policy is None:
        return ()
    return ("cost_usd",) if policy.max_cost_usd is None else ("cost_usd", "over_limit")


def text_of(policy: CostPolicy | None) -> str | None:
    """A policy as text, by which a job that is resumed is compared."""
    if policy is None:
        return None
    from benchrouter.decisions.policy import OF_COSTS

    values = {name: getattr(policy, name) for name in OF_COSTS}
    if policy.prices is not None:
        values["prices"] = {name: list(pair) for name, pair in sorted(policy.prices.items())}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def totals_of(policy: CostPolicy | None, totals: Totals) -> dict[str, Any]:
    """What the decisions under a policy are expected to cost, for JSON; empty without a policy."""
    if policy is None:
        return {}
    found: dict[str, Any] = {"cost_usd": totals.cost_usd}
    if policy.cost_weight is not None:
        found["cost_weight"] = policy.cost_weight
    if policy.max_cost_usd is not None:
        found["over_limit"] = totals.over_limit
    return found


def say_totals(policy: CostPolicy | None, totals: Totals, of: str = "prompts") -> None:
    """Tell the same on stderr; nothing without a policy."""
    found = totals_of(policy, totals)
    if not found:
        return
    weight = f" at λ = {found['cost_weight']:.6g} a US$" if "cost_weight" in found else ""
    output.say(f"  expected cost: US$ {found['cost_usd']:.6g}{weight}")
    if found.get("over_limit"):
        output.say(f"  no model within --max-cost-usd: {found['over_limit']:,} {of}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
