"""What a router answers: decisions per prompt, one decision per task, and their explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.files.plain import finite, plain

PULLS = ("votes", "datasets", "embedding")


@dataclass(frozen=True)
class Decisions:
    """One decision per prompt, as arrays of shape (n_prompts,).

    Attributes
    ----------
    models : tuple of str
        The candidates.
    model : int32 array
        Position of the chosen model in `models`.
    score : float32 array
        Predicted score of the chosen model.
    margin : float32 array
        Its score less the best score among the others; negative only on a fallback, or where a
        cheaper model was taken.
    distance : float32 array
        u: mean cosine distance to the kappa nearest benchmark records.
    fallback : bool array
        Whether evidence was too thin and the fallback model was answered.
    cost_usd : float32 array or None
        Expected cost of the chosen model; None without a `CostPolicy`.
    over_limit : bool array or None
        Whether no model is expected to cost as little as the policy's `max_cost_usd`, and the
        cheapest was answered; None without a policy.
    chance : float32 array or None
        Chance that the chosen model answers correctly, in (0, 1), by the rule "auto"; None by other
        rules, or where correctness is not known.
    chance_low, chance_high : float32 arrays or None
        80 % interval of the success rate on prompts like this one.
    """

    models: tuple[str, ...]
    model: NDArray[np.int32]
    score: NDArray[np.float32]
    margin: NDArray[np.float32]
    distance: NDArray[np.float32]
    fallback: NDArray[np.bool_]
    cost_usd: NDArray[np.float32] | None = None
    over_limit: NDArray[np.bool_] | None = None
    chance: NDArray[np.float32] | None = None
    chance_low: NDArray[np.float32] | None = None
    chance_high: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.model)

    def names(self) -> list[str]:
        """Name of the chosen model of every prompt."""
        return [self.models[m] for m in self.model.tolist()]


@dataclass(frozen=True)
class TaskDecision:
    """One model chosen for a task, with the evidence for every model.

    Attributes
    ----------
    model, reason : str
        The choice and why, in a sentence.
    fallback : bool
        Whether the best model on average was kept although another had the larger score.
    score : "auto", "s1", "s2" or "s3"
        What was maximised.
    expected_accuracy : float
        Expected accuracy of the chosen model on the task, in [0, 1].
    interval : tuple of float, or None
        80 % interval of the accuracy that will be measured on the prompts without labels; None
        where the benchmark has too few datasets to tell.
    best_by_score, best_on_average : str
        The model of the largest score, and the benchmark's best on average.
    probability : float
        Chance that `best_by_score` truly beats `best_on_average` (for S1 to S3 by eq. 8); NaN
        where the two are the same model, or nothing is known about it.
    distance : float
        u of the task.
    benchmark_distances : float64 array, shape (n_datasets,)
        u of every benchmark dataset against the others.
    warning : str or None
        Set when the task lies farther away than any benchmark dataset.
    n_prompts, n_labels : int
    n_effective : float
        Prompts on which the accuracy will be measured, those that repeat counted less: the same
        prompt 2,000 times is one. Of the tasks of `choose_groups` it is an estimate.
    models : tuple of str
    auto, auto_sd : float64 arrays, shape (n_models,)
        Expected accuracy, in [0, 1], and its standard deviation (NaN = too few datasets to tell).
    s1, s2, s3, p_hat, standing, params_b, cost_usd : float64 arrays, shape (n_models,)
        p_hat includes what labels say of p; cost_usd is the mean recorded per prompt; NaN =
        unknown.
    prices : float64 array, shape (n_models, 2)
        Listed US$ per million tokens in and out; NaN = unknown.
    support : int64 array, shape (n_models,)
        Prompts with at least one neighbour on which the model was run.
    allowed : bool array, shape (n_models,)
        Models that may be chosen; `best_by_score` and `best_on_average` are among them.
    task_cost_usd : float64 array, shape (n_models,), or None
        Expected cost of a prompt of the task; None without a `CostPolicy`.
    over_limit : bool or None
        As in `Decisions`, for the mean prompt of the task.
    """

    model: str
    reason: str
    fallback: bool
    score: str
    expected_accuracy: float
    interval: tuple[float, float] | None
    best_by_score: str
    best_on_average: str
    probability: float
    distance: float
    benchmark_distances: Array
    warning: str | None
    n_prompts: int
    n_labels: int
    n_effective: float
    models: tuple[str, ...]
    auto: Array
    auto_sd: Array
    s1: Array
    s2: Array
    s3: Array
    p_hat: Array
    support: NDArray[np.int64]
    standing: Array
    params_b: Array
    cost_usd: Array
    prices: Array
    allowed: NDArray[np.bool_]
    task_cost_usd: Array | None = None
    over_limit: bool | None = None

    @property
    def expected_cost_usd(self) -> float | None:
        """Expected cost of the chosen model on a prompt of the task; None without a policy."""
        if self.task_cost_usd is None:
            return None
        return float(self.task_cost_usd[self.models.index(self.model)])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON (unknown = None).

        Returns
        -------
        dict
            With one entry per model under "models".
        """
        columns = (
            "auto", "auto_sd", "s1", "s2", "s3", "p_hat", "support", "standing", "params_b",
            "cost_usd", "allowed",
        )  # fmt: skip
        costs = self.task_cost_usd
        return {
            "model": self.model,
            "reason": self.reason,
            "fallback": self.fallback,
            "score": self.score,
            "expected_accuracy": plain(self.expected_accuracy),
            "interval": finite(self.interval),
            "best_by_score": self.best_by_score,
            "best_on_average": self.best_on_average,
            "probability": plain(self.probability),
            "distance": self.distance,
            "benchmark_distances": finite(self.benchmark_distances.tolist()),
            "warning": self.warning,
            "n_prompts": self.n_prompts,
            "n_labels": self.n_labels,
            "n_effective": self.n_effective,
            "expected_cost_usd": self.expected_cost_usd,
            "over_limit": self.over_limit,
            "models": [
                {
                    "model": name,
                    **{c: plain(getattr(self, c)[i].item()) for c in columns},
                    "task_cost_usd": None if costs is None else plain(costs[i].item()),
                    "usd_per_million_tokens": finite(self.prices[i].tolist()),
                }
                for i, name in enumerate(self.models)
            ],
        }


@dataclass(frozen=True)
class Neighbour:
    """A benchmark record that voted on a prompt.

    Attributes
    ----------
    dataset, sample_id, prompt : str
    similarity : float
        Cosine, in [-1, 1].
    weight : float
        Its share of the votes, in (0, 1].
    scores : dict of str to float or None
        Recorded score of every model, None = not run.
    """

    dataset: str
    sample_id: str
    prompt: str
    similarity: float
    weight: float
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Explanation:
    """Why a prompt goes where it goes.

    Attributes
    ----------
    prompt : str or None
    rule : str
    model, reason : str
    score, margin, distance : float
    fallback : bool
    models : tuple of str
    scores : float64 array, shape (n_models,)
        Predicted score of every model under the rule.
    support : int64 array, shape (n_models,)
        Neighbours on which the model was run.
    neighbours : list of Neighbour
        Those that voted, most similar first; by the rule "auto" the first ten of them.
    n_voting : int
        How many voted.
    cost_usd : float64 array, shape (n_models,), or None
        Expected cost of every model on the prompt; None where it is not known of all of them.
    no_cost : str or None
        Why it is not known, where some cost or price is.
    utility : float64 array, shape (n_models,), or None
        Score − λ·cost, where a policy has a finite λ. On a fallback the score is the model's
        standing, and none counts above that of the fallback model.
    chance : float64 array, shape (n_models,), or None
        Calibrated chance of a correct answer, by the rule "auto" or where a policy asks for it;
        None where correctness is not known.
    chance_low, chance_high : float64 arrays, shape (n_models,), or None
        80 % interval of the success rate on prompts like this one, by the rule "auto".
    standing : float64 array, shape (n_models,), or None
        By the rule "auto": expected score before anything is seen of the prompt.
    pulls : dict of str to float64 array of shape (n_models,), or None
        By the rule "auto": what the votes, the datasets that they come from and the embedding add
        to the standing. The sum of all is the score.
    strange : float or None
        By the rule "auto": chance that the prompt comes from a dataset that the benchmark lacks.
    over_limit : bool or None
        As in `Decisions`; None without a policy.
    """

    prompt: str | None
    rule: str
    model: str
    reason: str
    score: float
    margin: float
    distance: float
    fallback: bool
    models: tuple[str, ...]
    scores: Array
    support: NDArray[np.int64]
    neighbours: list[Neighbour]
    n_voting: int
    cost_usd: Array | None = None
    no_cost: str | None = None
    utility: Array | None = None
    chance: Array | None = None
    chance_low: Array | None = None
    chance_high: Array | None = None
    standing: Array | None = None
    pulls: dict[str, Array] | None = None
    strange: float | None = None
    over_limit: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON (unknown = None)."""
        none = [None] * len(self.models)
        columns = {
            name: none if values is None else finite(values.tolist())
            for name, values in (
                *(("score", self.scores), ("support", self.support), ("cost_usd", self.cost_usd)),
                *(("utility", self.utility), ("chance", self.chance)),
                *(("chance_low", self.chance_low), ("chance_high", self.chance_high)),
                ("standing", self.standing),
                *((f"{view}_pull", (self.pulls or {}).get(view)) for view in PULLS),
            )
        }
        return {
            "prompt": self.prompt,
            "rule": self.rule,
            "model": self.model,
            "reason": self.reason,
            "score": plain(self.score),
            "margin": plain(self.margin),
            "distance": plain(self.distance),
            "fallback": self.fallback,
            "over_limit": self.over_limit,
            "no_cost": self.no_cost,
            "strange": self.strange,
            "n_voting": self.n_voting,
            "models": [
                {"model": name, **{column: values[i] for column, values in columns.items()}}
                for i, name in enumerate(self.models)
            ],
            "neighbours": [dict(vars(neighbour)) for neighbour in self.neighbours],
        }
