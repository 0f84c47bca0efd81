"""Bodies of answers, as pydantic models with examples, and what is refused by which status."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchrouter.serving.answer import Cause

MESSAGES = {
    400: "The body is no JSON in UTF-8.",
    401: "The key is missing or unknown.",
    403: "The service has no key, and Host is a name of the public internet.",
    404: "There is no such router.",
    408: "The body did not arrive in time.",
    413: "The body is too large; it was not read.",
    415: "The body is said to be something else than JSON.",
    422: "The JSON is not as expected, or the router cannot offer what is asked.",
    429: "Too much waits already; Retry-After says when to come back.",
    503: "No prompts are routed, yet or any more.",
}
IDENTITY = {"router": "default", "version": "8e4a1f09c2d7"}
BEST = {"model": "maths-13b", "reason": "maths-13b has the largest expected score, 0.928"}
CHANCE = {"chance": 0.934, "chance_low": 0.861, "chance_high": 1.0}
PRICED = {"standing": 0.62, "params_b": 13.0, "usd_per_million_tokens": [0.2, 0.2]}
DECISION = {
    **BEST,
    **CHANCE,
    **IDENTITY,
    "ranking": ["maths-13b", "general-70b", "small-3b"],
    "scores": [0.928, 0.625, 0.441],
    "fallback": False,
    "cause": None,
    "score": 0.928,
    "margin": 0.303,
    "distance": 0.436,
    "cost_usd": None,
    "over_limit": None,
    "truncated": False,
    "cached": False,
}
FAR = {
    **DECISION,
    "model": "general-70b",
    "ranking": ["general-70b", "maths-13b", "small-3b"],
    "scores": [0.52, 0.41, 0.33],
    "fallback": True,
    "cause": "far",
    "reason": "the prompt is farther from the benchmark than 99 % of its own held-out prompts",
    "score": 0.52,
    "margin": 0.11,
    "distance": 0.913,
    "chance": 0.534,
    "chance_low": 0.371,
    "chance_high": 0.697,
}


def _examples(*examples: dict[str, object]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class Answer(BaseModel):
    """The body of an answer; fields may be added."""


Number = float | None  # null = unknown


class Decision(Answer):
    """The model for one prompt."""

    model: str
    ranking: list[str] = Field(description="All models allowed, best first.")
    scores: list[Number] = Field(description="Predicted scores in the order of the ranking.")
    fallback: bool = Field(description="Whether evidence did not choose.")
    cause: Cause | None = Field(description="Why it did not.")
    reason: str
    score: Number
    margin: Number
    distance: Number
    chance: Number = Field(description="That the model answers correctly, by the rule auto.")
    chance_low: Number = Field(description="Lower end of its 80 % interval.")
    chance_high: Number = Field(description="Its upper end.")
    cost_usd: Number
    over_limit: bool | None
    truncated: bool = Field(description="Whether the prompt was longer than the encoder reads.")
    cached: bool
    router: str
    version: str


class OneDecision(Answer):
    """Answer to a prompt, or to messages."""

    model_config = _examples({"decision": DECISION})

    decision: Decision


class ManyDecisions(Answer):
    """Answer to prompts, in their order."""

    model_config = _examples({"decisions": [DECISION, FAR]})

    decisions: list[Decision]


class TaskModel(Answer):
    """What is known of a model on the task."""

    model: str
    auto: Number
    auto_sd: Number
    s1: Number
    s2: Number
    s3: Number
    p_hat: Number
    support: int
    standing: Number
    params_b: Number
    cost_usd: Number
    allowed: bool
    task_cost_usd: Number = Field(description="Expected cost of a prompt of the task.")
    usd_per_million_tokens: list[Number]


class TaskAnswer(Answer):
    """The model for a task, with the evidence."""

    model_config = _examples(
        {
            **IDENTITY,
            "model": "maths-13b",
            "reason": "expected accuracy is largest for maths-13b (0.887; general-70b, the best on "
            "average, has 0.752); it is the better of the two with probability 0.94",
            "fallback": False,
            "score": "auto",
            "expected_accuracy": 0.887,
            "interval": [0.801, 0.984],
            "best_by_score": "maths-13b",
            "best_on_average": "general-70b",
            "probability": 0.942,
            "distance": 0.36,
            "benchmark_distances": [0.671, 0.462],
            "warning": None,
            "n_prompts": 2,
            "n_labels": 0,
            "n_effective": 2.0,
            "expected_cost_usd": None,
            "over_limit": None,
            "models": [
                {
                    **PRICED,
                    "model": "maths-13b",
                    "auto": 0.887,
                    "auto_sd": 0.068,
                    "s1": 0.93,
                    "s2": 1.0,
                    "s3": 0.71,
                    "p_hat": 0.71,
                    "support": 2,
                    "cost_usd": None,
                    "allowed": True,
                    "task_cost_usd": None,
                }
            ],
        }
    )

    model: str
    reason: str
    fallback: bool
    score: str
    expected_accuracy: Number
    interval: list[float] | None
    best_by_score: str
    best_on_average: str
    probability: Number
    distance: Number
    benchmark_distances: list[Number]
    warning: str | None
    n_prompts: int
    n_labels: int
    n_effective: float
    expected_cost_usd: Number = Field(description="Of the model chosen, on a prompt of the task.")
    over_limit: bool | None
    models: list[TaskModel]
    router: str
    version: str


class ExplainedModel(Answer):
    """What is predicted of a model on the prompt."""

    model: str
    score: Number
    support: Number
    cost_usd: Number
    utility: Number
    chance: Number = Field(description="Of a correct answer.")
    chance_low: Number = Field(description="Of its 80 % interval, by the rule auto.")
    chance_high: Number
    standing: Number = Field(description="Expected score before anything is known of the prompt.")
    votes_pull: Number = Field(description="What the neighbours' votes add to the standing.")
    datasets_pull: Number = Field(description="What their datasets add.")
    embedding_pull: Number = Field(description="What the embedding adds; the sum is the score.")


class Neighbour(Answer):
    """A benchmark record that voted."""

    dataset: str
    sample_id: str
    prompt: str
    similarity: float
    weight: float = Field(description="Its share of the votes.")
    scores: dict[str, Number]


class ExplainAnswer(Answer):
    """The decision on a prompt, with the evidence."""

    model_config = _examples(
        {
            **BEST,
            **IDENTITY,
            "prompt": "What is 17 times 24?",
            "rule": "auto",
            "score": 0.928,
            "margin": 0.303,
            "distance": 0.436,
            "fallback": False,
            "over_limit": None,
            "no_cost": None,
            "strange": 0.031,
            "n_voting": 32,
            "models": [
                {
                    **CHANCE,
                    "model": "maths-13b",
                    "score": 0.928,
                    "support": 32,
                    "cost_usd": 0.0002,
                    "utility": None,
                    "standing": 0.62,
                    "votes_pull": 0.142,
                    "datasets_pull": 0.071,
                    "embedding_pull": 0.095,
                }
            ],
            "neighbours": [
                {
                    "dataset": "arithmetic",
                    "sample_id": "arithmetic-82",
                    "prompt": "What is 21 times 24 plus 9? Answer with a number.",
                    "similarity": 0.758,
                    "weight": 0.03125,
                    "scores": {"maths-13b": 1.0, "general-70b": 1.0, "small-3b": None},
                }
            ],
            "truncated": False,
            "distance_limit": 0.822,
            "benchmark_distances": [0.671, 0.462],
            "decision": DECISION,
        }
    )

    prompt: str | None
    rule: str
    model: str = Field(description="Among all models; `decision` has the one among those allowed.")
    reason: str
    score: Number
    margin: Number
    distance: Number
    fallback: bool
    over_limit: bool | None
    no_cost: str | None
    strange: Number = Field(
        description="Chance that the prompt is of a kind that the benchmark lacks, by rule auto."
    )
    n_voting: int = Field(description="Neighbours that voted.")
    models: list[ExplainedModel]
    neighbours: list[Neighbour] = Field(description="The nearest; by the rule auto at most ten.")
    router: str
    version: str
    truncated: bool
    distance_limit: Number = Field(description="Prompts farther away go to the fallback.")
    benchmark_distances: list[Number] = Field(description="Of every dataset to the others.")
    decision: Decision = Field(description="What /v1/route answers.")


class ListedModel(Answer):
    """A model of a router; its shape is that of OpenAI's list of models, and more."""

    id: str
    object: Literal["model"]
    router: str
    standing: Number
    params_b: Number
    cost_usd: Number
    usd_per_million_tokens: list[Number]


class ListedDataset(Answer):
    """A dataset of a router's benchmark."""

    name: str
    n_records: int
    distance: Number


class ListedRouter(Answer):
    """A router that is served."""

    name: str
    version: str
    n_records: int
    datasets: list[ListedDataset]
    best_on_average: str
    fallback: str
    distance_limit: Number
    k: int
    loaded_at: float
    error: str | None = Field(description="Why the last reload failed.")


class ModelsAnswer(Answer):
    """All models of all routers, or of one."""

    model_config = _examples(
        {
            "object": "list",
            "data": [
                {
                    **PRICED,
                    "id": "maths-13b",
                    "object": "model",
                    "router": "default",
                    "cost_usd": None,
                }
            ],
            "routers": [
                {
                    "name": "default",
                    "version": "8e4a1f09c2d7",
                    "n_records": 1040,
                    "datasets": [{"name": "arithmetic", "n_records": 130, "distance": 0.671}],
                    "best_on_average": "general-70b",
                    "fallback": "general-70b",
                    "distance_limit": 0.822,
                    "k": 5,
                    "loaded_at": 1767225600.0,
                    "error": None,
                }
            ],
        }
    )

    object: Literal["list"]
    data: list[ListedModel]
    routers: list[ListedRouter]


class ErrorContent(Answer):
    """What went wrong."""

    message: str
    type: str
    code: str


class ErrorAnswer(Answer):
    """In the shape of OpenAI's errors."""

    model_config = _examples(
        {
            "error": {
                "message": "found 1,200 prompts, expected at most 1,000",
                "type": "invalid_request_error",
                "code": "too_many_prompts",
            }
        }
    )

    error: ErrorContent


class Status(Answer):
    """State of the process."""

    status: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of a route, as FastAPI takes them, for the statuses by which it refuses."""
    return {status: {"model": ErrorAnswer, "description": MESSAGES[status]} for status in statuses}
