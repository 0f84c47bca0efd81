"""What models are expected to cost: where costs come from, and the cost of every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.policy import CostSource, Policy
from benchrouter.files.arrays import Array, Ids
from benchrouter.scores.fitted import Fit
from benchrouter.votes.votes import votes

BYTES_PER_TOKEN = 4  # of UTF-8: English prose in today's tokenizers


@dataclass(frozen=True)
class Costs:
    """Where the expected costs of a benchmark's models come from.

    Attributes
    ----------
    fit : Fit
    source : "records", "models" or "prices"
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.
    output_tokens : float
        Expected length of an answer, for "prices".
    """

    fit: Fit
    source: CostSource
    prices: Array
    output_tokens: float

    def tokens(
        self, n_prompts: int, prompts: Sequence[str] | None, tokens: NDArray[np.integer] | None
    ) -> NDArray[np.integer] | None:
        """Tokens of prompts, checked or estimated; None where costs do not depend on them."""
        return tokens_of(n_prompts, prompts, tokens) if self.source == "prices" else None

    def of_prompts(
        self, voting: Ids, tokens: NDArray[np.integer] | None, threads: int = 0
    ) -> NDArray[np.float32]:
        """Expected cost of every model on every prompt.

        Parameters
        ----------
        voting : int64 array, shape (n_prompts, k)
            The neighbours that vote, −1 = none.
        tokens : int array, shape (n_prompts,), or None
            As :meth:`tokens` gives them.
        threads : int
            0 = all.

        Returns
        -------
        float32 array, shape (n_prompts, n_models)
            US$; NaN = unknown.
        """
        fit = self.fit
        if self.source == "prices" and tokens is not None:
            return price_of(self.prices, tokens, self.output_tokens).astype(np.float32)
        if self.source == "records" and fit.record_cost_usd is not None:
            return neighbours_cost_usd(voting, fit.record_cost_usd, fit.cost_usd, threads)
        return np.broadcast_to(fit.cost_usd.astype(np.float32), (len(voting), len(fit.models)))


def costs_of(fit: Fit, policy: Policy, allowed: NDArray[np.bool_]) -> Costs:
    """Find where the costs of the models allowed come from.

    Parameters
    ----------
    fit : Fit
    policy : Policy
    allowed : bool array, shape (n_models,)
        Models that may be chosen; the costs of the others may be unknown.

    Raises
    ------
    ValueError
        Naming the models whose cost is not known, or what else is missing.
    """
    prices = prices_of(policy, fit.models, fit.prices)
    names = [fit.models[m] for m in np.flatnonzero(allowed)]
    has_records = fit.record_cost_usd is not None
    source = source_of(policy, names, fit.cost_usd[allowed], prices[allowed], has_records)
    return Costs(fit, source, prices, policy.output_tokens or 0.0)


def prices_of(policy: Policy, models: Sequence[str], listed: Array) -> Array:
    """Put the prices of a policy in place of those that a benchmark lists.

    Parameters
    ----------
    policy : Policy
    models : sequence of str
    listed : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.

    Returns
    -------
    float64 array, shape (n_models, 2)

    Raises
    ------
    ValueError
        Naming models that the benchmark lacks, and its models of similar names.
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
    policy: Policy,
    models: Sequence[str],
    cost_usd: Array,
    prices: Array,
    has_records: bool,
) -> CostSource:
    """Choose where costs come from; an unknown cost is an error, never 0.

    Parameters
    ----------
    policy : Policy
    models : sequence of str
    cost_usd : float64 array, shape (n_models,)
        Mean recorded US$ per prompt; NaN = unknown.
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out, as :func:`prices_of` gives them; NaN = unknown.
    has_records : bool
        Whether the cost of every record is at hand.

    Raises
    ------
    ValueError
        Naming the models whose cost is not known, or what else is missing.
    """
    unrecorded = [models[m] for m in np.flatnonzero(np.isnan(cost_usd)).tolist()]
    unpriced = [models[m] for m in np.flatnonzero(np.isnan(prices).any(axis=1)).tolist()]
    source = policy.costs or "auto"
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
        _check_priced(policy, unpriced)
    elif unrecorded:
        raise ValueError(f"no cost is recorded for {', '.join(unrecorded)}")
    elif source == "records" and not has_records:
        raise ValueError(
            "this router was saved without the costs of records: fit it again, or use 'models'"
        )
    return source


def _check_priced(policy: Policy, unpriced: Sequence[str]) -> None:
    """Refuse prices × tokens where one of them is missing."""
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


def neighbours_cost_usd(
    voting: Ids,
    record_cost_usd: NDArray[np.float32],
    mean_cost_usd: Array,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Expected cost by records: the neighbours' mean, shrunk to the model's by one record's weight.

    Parameters
    ----------
    voting : int64 array, shape (n_prompts, k)
        The neighbours that vote, −1 = none.
    record_cost_usd : float32 array, shape (n_records, n_models)
        NaN = unknown.
    mean_cost_usd : float64 array, shape (n_models,)
        NaN = unknown.
    threads : int
        0 = all.

    Returns
    -------
    float32 array, shape (n_prompts, n_models)
        US$; NaN for a model without any recorded cost.
    """
    mean = mean_cost_usd.astype(np.float32)
    known = np.where(np.isnan(mean), np.float32(0), mean)
    found = votes(voting, record_cost_usd, prior=known, prior_weight=1.0, threads=threads).votes
    found[:, np.isnan(mean)] = np.nan
    return found


def tokens_of(
    n_prompts: int, prompts: Sequence[str] | None, tokens: NDArray[np.integer] | None
) -> NDArray[np.integer]:
    """Tokens as they were given, checked, or estimated.

    Parameters
    ----------
    n_prompts : int
    prompts : sequence of str, optional
    tokens : int array, shape (n_prompts,), optional

    Returns
    -------
    int array, shape (n_prompts,)

    Raises
    ------
    TypeError, ValueError
        If both are missing, or the tokens are invalid.
    """
    if tokens is None:
        if prompts is None:
            raise ValueError(
                "costs are prices × tokens here: pass tokens, or the prompts with their embeddings"
            )
        return estimate_tokens(prompts)
    if not isinstance(tokens, np.ndarray) or not np.issubdtype(tokens.dtype, np.integer):
        found = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"tokens must be an array of integers, got {found}")
    if tokens.shape != (n_prompts,):
        raise ValueError(f"tokens have shape {tokens.shape}, expected ({n_prompts},)")
    if len(tokens) and tokens.min() < 0:
        raise ValueError(f"tokens must be at least 0, got {tokens.min()}")
    return tokens


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
