"""Options of costs, and what the commands print about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from benchrouter.cli import options, output

if TYPE_CHECKING:
    from benchrouter.decisions.policy import CostSource, Policy, Rule
    from benchrouter.decisions.written.manifest import Totals

OF_CHOOSE = {"--tokens": "a task has many prompts: their --tokens-column counts the tokens"}
OF_EXPLAIN = {
    "--budget-usd": "a budget is for all prompts together: give the --cost-weight that "
    "`benchrouter route` found for it",
    "--tokens-column": "one prompt has its --tokens",
}


@dataclass(frozen=True)
class CostOptions:
    """How cost counts."""

    cost_weight: Annotated[
        float | None,
        typer.Option(
            metavar="λ", help="The largest score − λ·cost wins; in score per US$, inf too."
        ),
    ] = None
    max_cost_usd: Annotated[
        float | None,
        typer.Option(
            "--max-cost-usd",
            metavar="US$",
            help="Models expected to cost more on a prompt are not allowed on it; where none is, "
            "the cheapest is taken.",
        ),
    ] = None
    budget_usd: Annotated[
        float | None,
        typer.Option(
            "--budget-usd",
            metavar="US$",
            help="For all prompts together. Prompt by prompt, λ is found for it, which reads the "
            "prompts twice.",
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(
            metavar="ε|auto",
            help="The cheapest model whose score is at least the best − ε; auto: the difference "
            "that held-out records cannot tell from none.",
        ),
    ] = None
    min_success: Annotated[
        float | None,
        typer.Option(
            metavar="τ",
            help="The cheapest model whose calibrated chance of a correct answer exceeds τ, else "
            "the best.",
        ),
    ] = None
    costs: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Expected costs by: records (those of the neighbours), models (means), prices "
            "(× tokens; takes --output-tokens), or auto: prices where --prices or a count of "
            "tokens is given, else the first of these that is known.",
        ),
    ] = None
    output_tokens: Annotated[
        float | None,
        typer.Option(metavar="N", help="Expected tokens of an answer, where costs are by prices."),
    ] = None
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="US$ per million tokens of models, in place of the router's: .json "
            "{MODEL: [IN, OUT]}, or .csv with model, input_usd_per_million_tokens, "
            "output_usd_per_million_tokens.",
        ),
    ] = None
    tokens_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Field of every record that counts the tokens of its prompt, for costs by prices; "
            "otherwise a fourth of the prompt's bytes.",
        ),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Tokens of the prompt, for costs by prices; otherwise a fourth of its bytes.",
        ),
    ] = None

    def policy(
        self, rule: Rule = "auto", k: int | None = None, models: list[str] | None = None
    ) -> Policy:
        """Policy of these options, with rule, k and models; contradictions are wrong usage."""
        from benchrouter.decisions.policy import Policy

        given: dict[str, Any] = {
            "cost_weight": self.cost_weight,
            "max_cost_usd": self.max_cost_usd,
            "budget_usd": self.budget_usd,
            "within": _within(self.within),
            "min_success": self.min_success,
            "output_tokens": self.output_tokens,
        }
        source = self._source()
        if source is None and all(value is None for value in given.values()):
            return Policy(rule=rule, k=k, models=models)
        _check_each(given)
        if rule != "auto" and self.within == "auto":
            raise typer.BadParameter(
                f"found auto with the rule {rule}, expected a number; auto is for --rule auto",
                param_hint="--within",
            )
        if self.prices is not None:
            from benchrouter.tables.layouts.prices import read_prices

            given["prices"] = read_prices(self.prices)
        return Policy(rule=rule, k=k, models=models, costs=source or "auto", **given)

    def _source(self) -> CostSource | None:
        """Source of costs; `prices` and a count of tokens ask for costs by prices."""
        from benchrouter.decisions.policy import SOURCES

        names = ("prices", "tokens_column", "tokens")
        by_prices = [_option(name) for name in names if getattr(self, name) is not None]
        options.one_of(self.costs or "auto", SOURCES, "--costs")
        if by_prices and self.costs not in (None, "auto", "prices"):
            raise typer.BadParameter(
                f"found {self.costs}, expected prices, which {by_prices[0]} is for",
                param_hint="--costs",
            )
        return "prices" if by_prices else cast("CostSource | None", self.costs)


def _check_each(given: dict[str, Any]) -> None:
    """Refuse two aims, and numbers out of range, by the names of their options."""
    from benchrouter.decisions.policy import OBJECTIVES, Policy

    rivals = [_option(name) for name in OBJECTIVES if given[name] is not None]
    if len(rivals) > 1:
        raise typer.BadParameter(
            f"found {' and '.join(rivals)}, expected at most one of "
            f"{', '.join(map(_option, OBJECTIVES))}"
        )
    for name, value in given.items():
        try:
            Policy(**{name: value})
        except ValueError as e:
            found = str(e).removeprefix(f"{name} ")
            raise typer.BadParameter(found, param_hint=_option(name)) from None


def _within(text: str | None) -> float | str | None:
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"found {text!r}, expected a number or auto", param_hint="--within"
        ) from None


def totals_of(policy: Policy, totals: Totals) -> dict[str, Any]:
    """Expected costs of the decisions, for JSON; empty where costs do not count."""
    if not policy.counts_costs:
        return {}
    found: dict[str, Any] = {"cost_usd": totals.cost_usd}
    if policy.cost_weight is not None:
        found["cost_weight"] = policy.cost_weight
    if policy.max_cost_usd is not None:
        found["over_limit"] = totals.over_limit
    return found


def say_totals(policy: Policy, totals: Totals, of: str = "prompts") -> None:
    """Print them on stderr; nothing where costs do not count."""
    found = totals_of(policy, totals)
    if not found:
        return
    weight = f" at λ = {found['cost_weight']:.6g} a US$" if "cost_weight" in found else ""
    output.say(f"  expected cost: US$ {found['cost_usd']:.6g}{weight}")
    if found.get("over_limit"):
        output.say(f"  no model within --max-cost-usd: {found['over_limit']:,} {of}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
