"""What a request may ask of its decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, cast

from benchrouter.decisions.costs.cost_policy import CostPolicy, CostSource
from benchrouter.decisions.rules import RULES, Rule

OF_COSTS = (
    "cost_weight", "max_cost_usd", "within", "min_success", "costs", "output_tokens", "prices",
)  # fmt: skip


@dataclass(frozen=True)
class RoutePolicy:
    """How a prompt is routed: the rule, the models allowed, and how cost counts.

    Attributes
    ----------
    rule : "auto", "mean", "raw" or "s3"
        As in `Router.route`.
    k : int, optional
        Neighbours that vote by the other rules than "auto", instead of the router's.
    models : tuple of str, optional
        Models that may be answered; by default all. Names that the router does not know are
        passed over, so that one list serves several routers.
    cost_weight, max_cost_usd, within, min_success, costs, output_tokens, prices
        As in `CostPolicy`; none of them = cost only decides ties.

    Raises
    ------
    TypeError, ValueError
        Naming the field, what was found and what was expected.
    """

    rule: Rule = "auto"
    k: int | None = None
    models: tuple[str, ...] | None = None
    cost_weight: float | None = None
    max_cost_usd: float | None = None
    within: float | Literal["auto"] | None = None
    min_success: float | None = None
    costs: CostSource | None = None
    output_tokens: float | None = None
    prices: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range, or contradicts itself."""
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, got {self.rule!r}")
        if self.k is not None:
            if isinstance(self.k, bool) or not isinstance(self.k, int):
                raise TypeError(f"k must be an integer, got {type(self.k).__name__}")
            if self.k < 1:
                raise ValueError(f"k must be at least 1, got {self.k}")
            if self.rule == "auto":
                raise ValueError("k is for the rules 'mean', 'raw' and 's3', found it with 'auto'")
        if self.within == "auto" and self.rule != "auto":
            raise ValueError(f"within 'auto' is for the rule 'auto', found it with {self.rule!r}")
        if self.models is not None:
            names = [self.models] if isinstance(self.models, str) else list(self.models)
            if isinstance(self.models, str) or not all(isinstance(n, str) for n in names):
                raise TypeError(f"models must be a list of names, got {self.models!r}")
            if not names:
                raise ValueError("models must name at least one model, got none")
            object.__setattr__(self, "models", tuple(names))
        self.cost_policy  # noqa: B018 - checks the fields of costs

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RoutePolicy:
        """Make a policy of plain values, as JSON has them.

        Parameters
        ----------
        given : mapping of str to object
            Fields by name; those that are None are as if absent.

        Raises
        ------
        TypeError, ValueError
            As the class does, and naming what is no field of it.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"found {', '.join(map(repr, unknown))}, expected some of {names}")
        return cls(**{name: value for name, value in given.items() if value is not None})

    @cached_property
    def cost_policy(self) -> CostPolicy | None:
        """The fields of costs, None where there is none of them."""
        given = {name: getattr(self, name) for name in OF_COSTS}
        given = {name: value for name, value in given.items() if value is not None}
        return CostPolicy(**given) if given else None

    def allowed_of(self, models: Sequence[str]) -> tuple[str, ...]:
        """Those of a router's models that may be answered."""
        if self.models is None:
            return tuple(models)
        return tuple(name for name in models if name in self.models)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What tells policies apart, hashable."""
        prices = None
        if self.prices is not None:
            prices = tuple(sorted((name, tuple(pair)) for name, pair in self.prices.items()))
        rest = (getattr(self, field.name) for field in fields(self) if field.name != "prices")
        return (*rest, cast(object, prices))
