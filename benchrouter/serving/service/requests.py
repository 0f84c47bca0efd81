"""Bodies of requests, as pydantic models with examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import Required, Self, TypedDict  # pydantic takes these before Python 3.12

from benchrouter.serving.service.settings import MAX_TASK_PROMPTS

MAX_DEADLINE_MS = 600_000
MANY_ERRORS = 100  # too many to list: a body of 16 MB can hold a million

AtLeastZero = Annotated[float, Field(ge=0)]
Pair = Annotated[list[AtLeastZero], Field(min_length=2, max_length=2)]
# With fail_fast a list of a million bad items makes one error, not a million.
Prompts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
ROUTER = Field(None, description="Name of a router; needed if there are several.")

PROMPT = "What is 17 times 24?"
POLICY = {"cost_weight": 20.0, "costs": "prices", "output_tokens": 200, "max_cost_usd": 0.01}
SOME_MODELS = {"models": ["maths-13b", "small-3b"]}


class Body(BaseModel):
    """A JSON object with these fields and no others; numbers are numbers, and finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _tell_few_errors(cls, given: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as e:
            n = e.error_count()
            if n <= MANY_ERRORS:
                raise
            message = "found {n} fields that are not expected"
            raise PydanticCustomError("many_errors", message, {"n": f"{n:,}"}) from None


@with_config(ConfigDict(extra="allow"))
class Message(TypedDict, total=False):
    """A chat message in one of OpenAI's shapes."""

    role: Required[Annotated[str, Field(description="system, user, assistant, tool …")]]
    content: Annotated[Any, Field(description="Text, a list of parts, or null.")]


Messages = Annotated[list[Message], Field(min_length=1, fail_fast=True)]


def _whole(number: object) -> object:
    """Take 5.0 for 5, as JSON does."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class TaskPolicy(Body):
    """Who may be chosen, and how cost counts; at most one of cost_weight, within, min_success."""

    models: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="Only these models; names that the router lacks are ignored."
    )
    cost_weight: AtLeastZero | None = Field(
        None, description="The largest score − cost_weight × US$ wins."
    )
    max_cost_usd: AtLeastZero | None = Field(
        None, description="More expensive models are not allowed."
    )
    within: AtLeastZero | Literal["auto"] | None = Field(
        None,
        description="The cheapest model whose score is at least the best − within; auto: the "
        "largest difference that held-out records cannot tell from none.",
    )
    min_success: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The cheapest model whose chance of a correct answer exceeds it."
    )
    costs: Literal["auto", "records", "models", "prices"] | None = None
    output_tokens: AtLeastZero | None = Field(
        None, description="Expected length of an answer, if costs are by prices."
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


def _one_of(examples: list[dict[str, object]], **kinds: str) -> ConfigDict:
    """Schema of a body that has exactly one of some fields, by name the JSON type of each."""
    one = [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]
    return ConfigDict(json_schema_extra={"oneOf": one, "examples": examples})


def _check_one(body: Body, *names: str) -> None:
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"found {found} of {', '.join(names)}, expected one")


class RouteRequest(Body):
    """One of prompt, prompts and messages, and how to route it."""

    model_config = _one_of(
        [
            {"prompt": PROMPT},
            {
                "messages": [
                    {"role": "system", "content": "Answer with a number."},
                    {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
                ]
            },
            {"prompts": [PROMPT, "Who wrote Peer Gynt?"], "deadline_ms": 200},
            {"prompt": PROMPT, "policy": {**SOME_MODELS, **POLICY}},
        ],
        prompt="string",
        prompts="array",
        messages="array",
    )

    prompt: str | None = None
    prompts: Prompts | None = None
    messages: Messages | None = None
    router: str | None = ROUTER
    policy: Policy | None = None
    deadline_ms: float | None = Field(
        None,
        ge=1,
        le=MAX_DEADLINE_MS,
        description="After it the fallback model is answered, with the cause deadline.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_one(self, "prompt", "prompts", "messages")
        return self


class ExplainRequest(Body):
    """One of prompt and messages, and how to route it."""

    model_config = _one_of(
        [{"prompt": PROMPT}, {"prompt": PROMPT, "policy": POLICY}],
        prompt="string",
        messages="array",
    )

    prompt: str | None = None
    messages: Messages | None = None
    router: str | None = ROUTER
    policy: Policy | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_one(self, "prompt", "messages")
        return self


TASK = [PROMPT, "What is 6 times 7?"]


class ChooseRequest(Body):
    """Prompts of a task, and what is known of the first of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompts": TASK},
                {
                    "prompts": TASK,
                    "labels": [{"maths-13b": 1, "general-70b": 0, "small-3b": None}],
                },
                {"prompts": TASK, "policy": SOME_MODELS},
            ]
        }
    )

    prompts: Annotated[list[str], Field(min_length=1, max_length=MAX_TASK_PROMPTS, fail_fast=True)]
    labels: (
        Annotated[list[dict[str, float | None]], Field(max_length=MAX_TASK_PROMPTS, fail_fast=True)]
        | None
    ) = Field(None, description="The models' scores on each of the first prompts; null = not run.")
    label_threshold: float | None = Field(
        None,
        description="A label above it is correct. Without it labels must lie in [0, 1], and are "
        "correct above 0.5.",
    )
    router: str | None = ROUTER
    score: Literal["auto", "s1", "s2", "s3"] = "auto"
    policy: TaskPolicy | None = None
