"""What is asked of a decision: the rule, the models allowed, and how cost counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from benchrouter.neighbours.index import check_count

Rule = Literal["auto", "mean", "raw", "s3"]
RULES = ("auto", "mean", "raw", "s3")
CostSource = Literal["auto", "records", "models", "prices"]
SOURCES = ("auto", "records", "models", "prices")
OBJECTIVES = ("cost_weight", "budget_usd", "within", "min_success")
OF_COSTS = (
    "cost_weight", "max_cost_usd", "budget_usd", "within", "min_success", "costs", "output_tokens",
    "prices",
)  # fmt: skip
MOST_NEIGHBOURS = 65535  # support is counted in 16 bits


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a model is chosen for a prompt or a task.

    The empty policy takes the rule "auto" among all models, and cost only decides ties. At most one
    of `cost_weight`, `budget_usd`, `within` and `min_success` may be given; each goes with
    `max_cost_usd`. Where any field of costs is given, decisions tell expected costs.

    Attributes
    ----------
    rule : "auto", "mean", "raw" or "s3"
        How prompts are scored. "auto": expected score, from the neighbours, their datasets and the
        embedding, as far as held-out records say that each can be trusted; it also tells the
        chance of success. "mean": mean raw score of the neighbours, shrunk to the model's standing
        with the weight of one record. "raw": the plain mean, the paper's rule on MixInstruct (with
        k=10). "s3": ḡ·p̂(u) + (1 − ḡ)(1 − p̂(u)).
    k : int, optional
        Neighbours that vote by "mean", "raw" and "s3", instead of the router's.
    models : sequence of str, optional
        Models that may be chosen, by default all. Where the fallback model is not among them, the
        one of the best standing takes its place.
    cost_weight : float, optional
        λ ≥ 0, in score per US$: the largest score − λ·cost wins. Infinite = the cheapest model.
    max_cost_usd : float, optional
        Models expected to cost more on a prompt are not allowed on it; where none is allowed the
        cheapest is taken, and `Decisions.over_limit` says so.
    budget_usd : float, optional
        For all prompts together: λ is found by bisection, such that their expected costs add up
        to no more. One λ serves all prompts; those that change their model at the same λ do so
        together, so some of the budget may be left. For one task (`Router.choose`) the best model
        that it affords on all prompts.
    within : float or "auto", optional
        ε ≥ 0: the cheapest model whose predicted score is at least the best − ε. "auto" takes the
        difference that held-out records cannot tell from none (with the rule "auto"); it is the
        default there, where no objective is given.
    min_success : float, optional
        τ in [0, 1]: the cheapest model whose calibrated chance of a correct answer exceeds τ;
        where none does, the model of the largest predicted score. By the rule "auto" it is the
        chance that `Decisions` tell. By the other rules it is the predicted score, calibrated at
        the first call by isotonic regression on the benchmark's records, each predicted from all
        others: right on average for prompts of the benchmark's kinds, too sure for others. For a
        task it is the expected accuracy.
    costs : "auto", "records", "models" or "prices", optional
        Where an expected cost comes from. "records": the mean recorded cost of the neighbours that
        vote, shrunk to the model's mean with the weight of one record. "models": the model's mean
        recorded cost. "prices": prices × tokens of the prompt and `output_tokens`. "auto", also
        where another field of costs is given without it: "prices" where `prices` are given, else
        the first of "records", "models", "prices" that the benchmark offers.
    output_tokens : float, optional
        Expected length of an answer in tokens, for "prices", which needs it.
    prices : mapping of str to (float, float), optional
        US$ per million tokens in and out, by model, in place of those that the benchmark lists.

    Raises
    ------
    TypeError, ValueError
        Naming the field, what was found and what was expected.
    """

    rule: Rule = "auto"
    k: int | None = None
    models: Sequence[str] | None = None
    cost_weight: float | None = None
    max_cost_usd: float | None = None
    budget_usd: float | None = None
    within: float | Literal["auto"] | None = None
    min_success: float | None = None
    costs: CostSource | None = None
    output_tokens: float | None = None
    prices: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range, or contradicts itself."""
        if self.rule not in RULES:
            rules = ", ".join(map(repr, RULES))
            raise ValueError(f"rule must be one of {rules}, got {self.rule!r}")
        if self.k is not None:
            _check_k(self.k, self.rule)
        if self.models is not None:
            object.__setattr__(self, "models", _names(self.models))
        if self.counts_costs:
            self._check_costs()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Policy:
        """Make a policy of plain values, as JSON has them.

        Parameters
        ----------
        given : mapping of str to object
            Fields by name; those that are None are as if absent.

        Raises
        ------
        TypeError, ValueError
            As the class does, and naming unknown fields.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"found {', '.join(map(repr, unknown))}, expected some of {names}")
        return cls(**{name: value for name, value in given.items() if value is not None})

    @cached_property
    def counts_costs(self) -> bool:
        """Whether a field of costs is given, so that expected costs must be known."""
        return any(getattr(self, name) is not None for name in OF_COSTS)

    @property
    def has_objective(self) -> bool:
        """Whether anything but the largest score is asked for."""
        return any(getattr(self, name) is not None for name in OBJECTIVES)

    def known_among(self, models: Sequence[str]) -> tuple[str, ...]:
        """Those of a router's models that may be chosen; names that it lacks are passed over."""
        if self.models is None:
            return tuple(models)
        return tuple(name for name in models if name in self.models)

    def refuse_budget(self, why: str) -> None:
        """Raise if there is a budget, which is for all prompts together.

        Parameters
        ----------
        why : str
            Says how the prompts come.

        Raises
        ------
        ValueError
        """
        if self.budget_usd is not None:
            raise ValueError(
                f"budget_usd is for all prompts together, {why}: find the cost weight first "
                "(find_cost_weight), and decide by that"
            )

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What tells policies apart, hashable."""
        prices: object = None
        if self.prices is not None:
            prices = tuple(sorted((name, tuple(pair)) for name, pair in self.prices.items()))
        return (*(getattr(self, f.name) for f in fields(self) if f.name != "prices"), prices)

    def _check_costs(self) -> None:
        for name in OF_COSTS[:5] + OF_COSTS[6:7]:
            _check_number(name, getattr(self, name))
        if self.within == "auto" and self.rule != "auto":
            raise ValueError(f"within 'auto' is for the rule 'auto', found it with {self.rule!r}")
        if self.min_success is not None and self.min_success > 1:
            raise ValueError(f"min_success must lie in [0, 1], got {self.min_success}")
        if self.output_tokens is not None and math.isinf(self.output_tokens):
            raise ValueError(f"output_tokens must be finite, got {self.output_tokens}")
        if self.costs not in (None, *SOURCES):
            raise ValueError(f"costs must be one of {SOURCES}, got {self.costs!r}")
        given = [name for name in OBJECTIVES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"at most one of {', '.join(OBJECTIVES)}, got {' and '.join(given)}")
        if self.prices is not None:
            _check_prices(self.prices)
            if self.costs not in (None, "auto", "prices"):
                raise ValueError(f"prices go with costs 'prices', got costs {self.costs!r}")


@dataclass(frozen=True, kw_only=True)
class CostPolicy(Policy):
    """A policy under which costs count, and are told, even where no other field is given."""

    costs: CostSource | None = "auto"


def policy_of(
    policy: Policy | None = None,
    *,
    rule: Rule | None = None,
    k: int | None = None,
    models: Iterable[str] | None = None,
) -> Policy:
    """Make one policy of a policy and what is given beside it.

    Parameters
    ----------
    policy : Policy, optional
        The empty one by default.
    rule, k, models : optional
        In place of the policy's.

    Raises
    ------
    TypeError, ValueError
        As `Policy` does.
    """
    if policy is None:
        policy = NO_POLICY
    elif not isinstance(policy, Policy):
        raise TypeError(f"policy must be a Policy, got {type(policy).__name__}")
    if rule is None and k is None and models is None:
        return policy
    if policy is NO_POLICY and models is None and isinstance(rule, str):
        return _of_rule(rule, k)
    return replace(
        policy,
        rule=policy.rule if rule is None else rule,
        k=policy.k if k is None else k,
        models=policy.models if models is None else _names(models),
    )


@lru_cache(typed=True)
def _of_rule(rule: Rule, k: int | None) -> Policy:
    return Policy(rule=rule, k=k)


def _check_k(k: int, rule: Rule) -> None:
    check_count(k, "k")
    if k > MOST_NEIGHBOURS:
        raise ValueError(f"k must be at most {MOST_NEIGHBOURS}, got {k}")
    if rule == "auto":
        raise ValueError("k is for the rules 'mean', 'raw' and 's3', found it with 'auto'")


def _check_number(name: str, value: object) -> None:
    if value is None or (name == "within" and value == "auto"):
        return
    if name == "within" and isinstance(value, str):
        raise ValueError(f"within must be a number or 'auto', got {value!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")


def _names(models: Iterable[str]) -> tuple[str, ...]:
    if isinstance(models, str):
        raise TypeError(f"models must be a list of names, got a single string, {models!r}")
    names = tuple(models)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"models must be a list of names, got {list(names)}")
    if not names:
        raise ValueError("models must name at least one model, found none")
    return names


def _check_prices(prices: object) -> None:
    """Refuse what is no mapping of names to pairs of finite prices."""
    if not isinstance(prices, Mapping):
        raise TypeError(f"prices must map models to (in, out), got {type(prices).__name__}")
    for model, price in prices.items():
        pair = price if isinstance(price, (tuple, list)) else ()
        if len(pair) != 2 or not all(_is_price(value) for value in pair):
            raise ValueError(
                f"prices of {model!r} must be two numbers of at least 0, US$ per million tokens in "
                f"and out, got {price!r}"
            )


def _is_price(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    return bool(0 <= value < math.inf)


NO_POLICY = Policy()
