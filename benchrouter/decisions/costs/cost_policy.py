"""Weighing cost against predicted score: the policy, what a prompt costs, and the choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array

CostSource = Literal["auto", "records", "models", "prices"]
SOURCES = ("auto", "records", "models", "prices")
OBJECTIVES = ("cost_weight", "budget_usd", "within", "min_success")
BYTES_PER_TOKEN = 4  # of UTF-8: English prose in today's tokenizers
BUDGET_USED = 0.999  # a λ that spends so much of a budget is near enough
STEPS = 100  # of the bisection at most: λ is then known to the last bit, or almost
ROUNDING = 1e-6  # of a budget: costs are float32


@dataclass(frozen=True)
class CostPolicy:
    """How a router weighs expected cost against predicted score, of a prompt or of a task.

    At most one of `cost_weight`, `budget_usd`, `within` and `min_success` may be given; each goes
    with `max_cost_usd`. With none of them the largest predicted score wins, and the decisions tell
    what it is expected to cost.

    Attributes
    ----------
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
        chance that `Decisions` tell, calibrated for known and for strange prompts at the fit. By
        the other rules it is the predicted score, calibrated by isotonic regression on the
        benchmark's records, each predicted from all others, at the first call: right on average
        for prompts of the benchmark's kinds, too sure for prompts of others. For a task it is the
        expected accuracy.
    costs : "auto", "records", "models" or "prices"
        Where an expected cost comes from. "records": the mean recorded cost of the neighbours that
        vote, drawn by one pseudo-record towards the model's mean. "models": the model's mean
        recorded cost. "prices": prices × tokens of the prompt and `output_tokens`.
        "auto": "prices" where `prices` are given, else the first of "records", "models", "prices"
        that the benchmark offers.
    output_tokens : float, optional
        Expected length of an answer in tokens, for "prices", which needs it.
    prices : mapping of str to (float, float), optional
        US$ per million tokens in and out, by model, in place of those that the benchmark lists.

    Raises
    ------
    TypeError, ValueError
        Naming the field, what was found and what was expected.
    """

    cost_weight: float | None = None
    max_cost_usd: float | None = None
    budget_usd: float | None = None
    within: float | Literal["auto"] | None = None
    min_success: float | None = None
    costs: CostSource = "auto"
    output_tokens: float | None = None
    prices: Mapping[str, tuple[float, float]] | None = None

    @property
    def has_objective(self) -> bool:
        """Whether anything but the largest score is asked for."""
        return any(getattr(self, name) is not None for name in OBJECTIVES)

    def __post_init__(self) -> None:
        """Refuse what is no number, out of range, or contradicts itself."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("costs", "prices") or value is None:
                continue
            if field.name == "within" and isinstance(value, str):
                if value != "auto":
                    raise ValueError(f"within must be a number or 'auto', got {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{field.name} must be a number, got {type(value).__name__}")
            if not value >= 0:
                raise ValueError(f"{field.name} must be at least 0, got {value}")
        if self.min_success is not None and self.min_success > 1:
            raise ValueError(f"min_success must lie in [0, 1], got {self.min_success}")
        if self.output_tokens is not None and math.isinf(self.output_tokens):
            raise ValueError(f"output_tokens must be finite, got {self.output_tokens}")
        if self.costs not in SOURCES:
            raise ValueError(f"costs must be one of {SOURCES}, got {self.costs!r}")
        given = [name for name in OBJECTIVES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"at most one of {', '.join(OBJECTIVES)}, got {' and '.join(given)}")
        if self.prices is not None:
            _check_prices(self.prices)
            if self.costs not in ("auto", "prices"):
                raise ValueError(f"prices go with costs 'prices', got costs {self.costs!r}")


def _check_prices(prices: object) -> None:
    """Refuse what is no mapping of names to pairs of finite prices."""
    if not isinstance(prices, Mapping):
        raise TypeError(f"prices must map models to (in, out), got {type(prices).__name__}")
    for model, price in prices.items():
        pair = price if isinstance(price, (tuple, list)) else ()
        if len(pair) != 2 or any(
            isinstance(value, bool)
            or not isinstance(value, (int, float, np.number))
            or not 0 <= value < math.inf
            for value in pair
        ):
            raise ValueError(
                f"prices of {model!r} must be two numbers of at least 0, US$ per million tokens in "
                f"and out, got {price!r}"
            )


def prices_of(policy: CostPolicy, models: Sequence[str], listed: Array) -> Array:
    """Put the prices of a policy in place of those that a benchmark lists.

    Parameters
    ----------
    policy : CostPolicy
    models : sequence of str
    listed : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.

    Returns
    -------
    float64 array, shape (n_models, 2)

    Raises
    ------
    ValueError
        Naming the models of the policy that are none of the benchmark's, and those of like names.
    """
    if policy.prices is None:
        return listed
    unknown = [name for name in policy.prices if name not in models]
    if unknown:
        near = list(dict.fromkeys(n for name in unknown for n in get_close_matches(name, models)))
        raise ValueError(
            f"prices name {', '.join(map(repr, unknown))}, no model of this router; "
            + (f"of like names it has {near}" if near else f"it has {list(models)}")
        )
    return np.array([policy.prices.get(m, own) for m, own in zip(models, listed, strict=True)])


def source_of(
    policy: CostPolicy,
    models: Sequence[str],
    cost_usd: Array,
    prices: Array,
    has_records: bool,
) -> CostSource:
    """Choose where costs come from; an unknown cost is an error, never 0.

    Parameters
    ----------
    policy : CostPolicy
    models : sequence of str
    cost_usd : float64 array, shape (n_models,)
        Mean recorded US$ per prompt; NaN = unknown.
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out, as :func:`prices_of` gives them; NaN = unknown.
    has_records : bool
        Whether the cost of every record is at hand.

    Returns
    -------
    "records", "models" or "prices"

    Raises
    ------
    ValueError
        Naming the models whose cost is not known, or what else is missing.
    """
    unrecorded = [name for name, cost in zip(models, cost_usd, strict=True) if np.isnan(cost)]
    unpriced = [name for name, both in zip(models, prices, strict=True) if np.isnan(both).any()]
    source = policy.costs
    if policy.prices is not None:
        source = "prices"
    if source == "auto":
        if unrecorded and unpriced:
            raise ValueError(
                f"the cost of some models is not known: no cost is recorded for "
                f"{', '.join(unrecorded)}; no prices for {', '.join(unpriced)}. Fit on a table "
                "with cost::MODEL or prices for every model, or without these models; or give "
                "the prices (--prices)"
            )
        source = "prices" if unrecorded else "records" if has_records else "models"
    if source == "prices":
        if unpriced:
            raise ValueError(
                f"no prices are known for {', '.join(unpriced)}; give them (--prices), in US$ per "
                "million tokens"
            )
        if policy.output_tokens is None:
            raise ValueError(
                "costs are prices × tokens here, which takes output_tokens, the expected tokens of "
                "an answer (--output-tokens)"
            )
    elif unrecorded:
        raise ValueError(f"no cost is recorded for {', '.join(unrecorded)}")
    elif source == "records" and not has_records:
        raise ValueError(
            "this router was saved without the costs of records: fit it again, or use 'models'"
        )
    return source


def estimate_tokens(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Estimate the tokens of prompts: a fourth of their bytes in UTF-8, rounded up.

    Good for English prose to about a fourth; for code or other scripts pass counts instead.

    Parameters
    ----------
    prompts : sequence of str
        Lone surrogates, which UTF-8 cannot hold, count as U+FFFD.

    Returns
    -------
    int64 array, shape (n_prompts,)
    """
    sizes = np.fromiter(
        (len(text.encode("utf-8", "surrogatepass")) for text in prompts), np.int64, len(prompts)
    )
    return -(-sizes // BYTES_PER_TOKEN)


def price_of(prices: Array, tokens: NDArray[np.integer], output_tokens: float) -> Array:
    """Expected cost by prices × tokens.

    Parameters
    ----------
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out.
    tokens : int array, shape (n_prompts,)
        Of each prompt.
    output_tokens : float
        Expected, of an answer.

    Returns
    -------
    float64 array, shape (n_prompts, n_models)
        US$.
    """
    return np.asarray((tokens[:, None] * prices[:, 0] + output_tokens * prices[:, 1]) * 1e-6)


def choose(
    score: Array,
    cost_usd: Array,
    limit_usd: Array,
    preference: NDArray[np.int32],
    policy: CostPolicy,
    cost_weight: float = 0.0,
    chance: Array | None = None,
    among: NDArray[np.bool_] | None = None,
    within: Array | float | None = None,
) -> NDArray[np.int32]:
    """Choose a model for every prompt under a policy.

    Parameters
    ----------
    score, cost_usd : float64 arrays, shape (n_prompts, n_models)
        Predicted score (NaN never wins) and expected cost (finite).
    limit_usd : float64 array, shape (n_prompts,)
        Dearer models are not allowed; each prompt has one that is.
    preference : int32 array, shape (n_models,)
        Rank of every model among equals.
    policy : CostPolicy
        Its `min_success`.
    cost_weight : float
        λ, where neither `within` nor `min_success` is given.
    chance : float64 array, shape (n_prompts, n_models), optional
        Calibrated chance of success, for `min_success`.
    among : bool array, shape (n_models,) or (n_prompts, n_models), optional
        Models that may be chosen, by default all.
    within : float, or float64 array of shape (n_prompts, 1), optional
        The cheapest model wins whose score is at least the best less this.

    Returns
    -------
    int32 array, shape (n_prompts,)
        Ties: by lower cost (of equally cheap models by larger score), then by preference.
    """
    order = np.argsort(preference)
    cost = cost_usd[:, order]
    score = np.where(np.isnan(score), -np.inf, score)[:, order]
    allowed = cost <= limit_usd[:, None]
    if among is not None:
        allowed &= among[..., order]
    if within is not None:
        best = np.where(allowed, score, -np.inf).max(axis=1, keepdims=True)
        picked = _first(allowed & (score >= best - within), -cost, score)
    elif policy.min_success is not None and chance is not None:
        enough = allowed & (chance[:, order] > policy.min_success)
        found = enough.any(axis=1)
        picked = np.where(found, _first(enough, -cost, score), _first(allowed, score, -cost))
    elif math.isinf(cost_weight):
        picked = _first(allowed, -cost, score)
    else:
        with np.errstate(over="ignore"):  # an infinite loss loses, and its ties go by cost
            picked = _first(allowed, score - cost_weight * cost, -cost)
    return order[picked].astype(np.int32)


def beneath(score: Array, at: int) -> Array:
    """Scores of models of which none counts above that of one of them.

    Parameters
    ----------
    score : float64 array, shape (n_models,)
    at : int
        Position of that model.

    Returns
    -------
    float64 array, shape (n_models,)
        The others lie at least a hair below it.
    """
    found = np.minimum(score, np.nextafter(score[at], -np.inf))
    found[at] = score[at]
    return found


def _first(candidates: NDArray[np.bool_], *keys: Array) -> NDArray[np.int64]:
    """First column among the candidates of each row that are largest by each key in turn."""
    for key in keys:
        ranked = np.where(candidates, key, -np.inf)
        candidates = candidates & (ranked == ranked.max(axis=1, keepdims=True))
    return candidates.argmax(axis=1)


def cost_weight_within(
    budget_usd: float, total_usd: Callable[[float], float], n_prompts: int
) -> float:
    """Find a λ that keeps to a budget and nearly spends it, by bisection.

    Parameters
    ----------
    budget_usd : float
        For all prompts; kept to its millionth part, as costs are float32.
    total_usd : callable
        λ to the total cost of the choices at λ, which falls as λ grows.
    n_prompts : int
        Of the total.

    Returns
    -------
    float
        0 where the best models are within the budget; else the smallest λ that keeps to it, or one
        that spends 99.9 % of it. Infinite where nothing less than the cheapest models will do.

    Raises
    ------
    ValueError
        If even the cheapest models cost more, naming what they cost.
    """
    most = budget_usd * (1.0 + ROUNDING)
    best_usd = total_usd(0.0)
    if best_usd <= most:
        return 0.0
    least_usd = total_usd(math.inf)
    if least_usd > most:
        raise ValueError(
            f"budget_usd {budget_usd:g} is below what the cheapest models cost, {least_usd:.7g}"
        )
    low, high = 0.0, 1e-3 * n_prompts / best_usd
    while total_usd(high) > most:
        low, high = high, 8.0 * high
        if math.isinf(high):
            return high
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        spent_usd = total_usd(middle)
        if spent_usd > most:
            low = middle
            continue
        high = middle
        if spent_usd >= BUDGET_USED * budget_usd:
            break
    return high
