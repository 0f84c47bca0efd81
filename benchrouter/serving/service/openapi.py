"""The OpenAPI document: what each operation takes and answers, with examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from benchrouter.serving.service import examples, schemas

if TYPE_CHECKING:
    from fastapi import FastAPI

    from benchrouter.serving.service.settings import Settings

REFERENCE = "#/components/schemas/{model}"
JSON = "application/json"
ABOUT = """\
Chooses, for every prompt, one of many LLMs by the benchmark records near it. `POST /v1/route`
always names a model: where evidence cannot choose (a prompt far from the benchmark, a deadline, a
device that failed), it is the fallback model, with the cause."""

REQUESTS = {
    "/v1/route": schemas.RouteRequest,
    "/v1/choose": schemas.ChooseRequest,
    "/v1/explain": schemas.ExplainRequest,
}
ANSWERS: dict[str, tuple[type[BaseModel], ...]] = {
    "/v1/route": (schemas.OneDecision, schemas.ManyDecisions),
    "/v1/choose": (schemas.TaskAnswer,),
    "/v1/explain": (schemas.ExplainAnswer,),
    "/v1/models": (schemas.ModelsAnswer,),
    "/healthz": (schemas.Status,),
    "/readyz": (schemas.Status,),
}
ERRORS = {
    400: "The body is no JSON in UTF-8.",
    401: "The key is missing or not known.",
    403: "The service has no key, and Host is a name of the public internet.",
    404: "There is no such router.",
    413: "The body is too large; it was not read.",
    415: "The body is said to be something else than JSON.",
    422: "The JSON is not what is expected, or the router cannot offer what is asked.",
    429: "Too much waits already; Retry-After says when to come back.",
    503: "No prompts are routed, yet or any more.",
}
OF_KEYS = (401, 403)
OF_BODIES = (400, 413, 415, 422, 429)
STATUSES = {
    "/v1/route": (*OF_KEYS, 404, *OF_BODIES),
    "/v1/choose": (*OF_KEYS, 404, *OF_BODIES),
    "/v1/explain": (*OF_KEYS, 404, *OF_BODIES),
    "/v1/models": (*OF_KEYS, 404, 422),
    "/metrics": OF_KEYS,
    "/readyz": (503,),
}


def operation(path: str) -> dict[str, Any]:
    """Arguments of `FastAPI.add_api_route` that document an operation.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict
    """
    answer: dict[str, Any] = {"description": "Done."}
    if path in ANSWERS:
        found = [_reference(model) for model in ANSWERS[path]]
        schema = found[0] if len(found) == 1 else {"anyOf": found}
        answer["content"] = {JSON: {"schema": schema, "examples": _named(examples.ANSWERS[path])}}
    else:
        answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
    error = {"schema": _reference(schemas.ErrorAnswer)}
    responses: dict[int, Any] = {200: answer}
    for status in sorted(STATUSES.get(path, ())):
        example = {"example": examples.ERRORS[status]}
        responses[status] = {
            "description": ERRORS[status],
            "content": {JSON: {**error, **example}},
        }
    found_kwargs: dict[str, Any] = {"responses": responses}
    if path in REQUESTS:
        content = {
            "schema": _reference(REQUESTS[path]),
            "examples": _named(examples.REQUESTS[path]),
        }
        found_kwargs["openapi_extra"] = {
            "requestBody": {"required": True, "content": {JSON: content}}
        }
    return found_kwargs


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Make the OpenAPI document of a service.

    Parameters
    ----------
    app : FastAPI
    settings : Settings
        Limits and whether a key is needed are told too.

    Returns
    -------
    dict
    """
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
    models = [
        (model, mode)
        for used, mode in ((REQUESTS.values(), "validation"), (_answers(), "serialization"))
        for model in used
    ]
    _, definitions = models_json_schema(models, ref_template=REFERENCE)
    components = found.setdefault("components", {})
    components["schemas"] = definitions["$defs"]
    prompts = components["schemas"]["RouteRequest"]["properties"]["prompts"]
    prompts["anyOf"][0]["maxItems"] = settings.max_prompts
    if settings.keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in found["paths"].items():
            if 401 in STATUSES.get(path, ()):
                for described in operations.values():
                    described["security"] = [{"key": []}]
    app.openapi_schema = found
    return found


def _answers() -> list[type[BaseModel]]:
    return [schemas.ErrorAnswer, *(model for models in ANSWERS.values() for model in models)]


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}
