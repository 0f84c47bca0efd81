"""Bodies of requests, as they are checked, and of answers, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Required, Self, TypedDict  # pydantic takes these before Python 3.12

from benchrouter.serving.answer import Cause
from benchrouter.serving.service.settings import MAX_TASK_PROMPTS

MAX_DEADLINE_MS = 600_000

AtLeastZero = Annotated[float, Field(ge=0)]
Pair = Annotated[list[AtLeastZero], Field(min_length=2, max_length=2)]
# With fail_fast a list of a million bad items makes one error, not a million.
Prompts = Annotated[list[str], Field(min_length=1, fail_fast=True)]


class Request(BaseModel):
    """A JSON object with these fields and no others; numbers are numbers, and finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Message(TypedDict, total=False):
    """A chat message in one of OpenAI's shapes."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    role: Required[Annotated[str, Field(description="system, user, assistant, tool …")]]
    content: Annotated[Any, Field(description="Text, a list of parts, or null.")]


Messages = Annotated[list[Message], Field(min_length=1, fail_fast=True)]
ROUTER = Field(None, description="Name of a router; needed where there are several.")


def _whole(number: Any) -> Any:
    """Take 5.0 for 5, as JSON does."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class TaskPolicy(Request):
    """Who may be chosen, and how cost counts; at most one of cost_weight, within, min_success."""

    models: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="Only these models; names that the router lacks are passed over."
    )
    cost_weight: AtLeastZero | None = Field(
        None, description="The largest score − cost_weight × US$ wins."
    )
    max_cost_usd: AtLeastZero | None = Field(None, description="Dearer models are not allowed.")
    within: AtLeastZero | Literal["auto"] | None = Field(
        None,
        description="The cheapest model whose score is at least the best − within; auto: the "
        "difference that held-out records cannot tell from none.",
    )
    min_success: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The cheapest model whose chance of a correct answer exceeds it."
    )
    costs: Literal["auto", "records", "models", "prices"] | None = None
    output_tokens: AtLeastZero | None = Field(
        None, description="Expected length of an answer, where costs are by prices."
    )
    prices: dict[str, Pair] | None = Field(
        None, description="US$ per million tokens in and out, by model."
    )


class Policy(TaskPolicy):
    """How a model is chosen; at most one of cost_weight, within and min_success."""

    rule: Literal["auto", "mean", "raw", "s3"] = "auto"
    k: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole)] | None = Field(
        None, description="Neighbours that vote by the rules mean, raw and s3."
    )


class _OneOf(Request):
    """Exactly one of some fields is given."""

    kinds: ClassVar[dict[str, str]]

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in self.kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of {', '.join(self.kinds)}, expected one"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Say the same in the schema."""
        schema: dict[str, Any] = handler(core)
        handler.resolve_ref_schema(schema)["oneOf"] = [
            {"required": [name], "properties": {name: {"type": kind}}}
            for name, kind in cls.kinds.items()
        ]
        return schema


class RouteRequest(_OneOf):
    """One of prompt, prompts and messages, and how to route it."""

    kinds = {"prompt": "string", "prompts": "array", "messages": "array"}

    prompt: str | None = None
    prompts: Prompts | None = None
    messages: Messages | None = None
    router: str | None = ROUTER
    policy: Policy | None = None
    deadline_ms: float | None = Field(
        None,
        ge=1,
        le=MAX_DEADLINE_MS,
        description="Past it the fallback model is answered, with the cause deadline.",
    )


class ExplainRequest(_OneOf):
    """One of prompt and messages, and how to route it."""

    kinds = {"prompt": "string", "messages": "array"}

    prompt: str | None = None
    messages: Messages | None = None
    router: str | None = ROUTER
    policy: Policy | None = None


class ChooseRequest(Request):
    """Prompts of a task, and what is known of the first of them."""

    prompts: Annotated[list[str], Field(min_length=1, max_length=MAX_TASK_PROMPTS, fail_fast=True)]
    labels: (
        Annotated[list[dict[str, float | None]], Field(max_length=MAX_TASK_PROMPTS, fail_fast=True)]
        | None
    ) = Field(None, description="Of each of the first prompts the models' scores; null = not run.")
    label_threshold: float | None = Field(
        None,
        description="A label above it is correct. Without it labels must lie in [0, 1], and are "
        "correct above 0.5.",
    )
    router: str | None = ROUTER
    score: Literal["auto", "s1", "s2", "s3"] = "auto"
    policy: TaskPolicy | None = None


class Answer(BaseModel):
    """What is answered; fields may be added."""


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
    """Of a prompt, or of messages."""

    decision: Decision


class ManyDecisions(Answer):
    """Of prompts, in their order."""

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
    standing: Number = Field(description="Expected score before anything is seen of the prompt.")
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

    prompt: str | None
    rule: str
    model: str = Field(description="Of all models; `decision` has the one of those allowed.")
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

    error: ErrorContent


class Status(Answer):
    """Of the process."""

    status: str
