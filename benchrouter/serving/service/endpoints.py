"""What each path answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from benchrouter.files.arrays import Array
from benchrouter.serving import RoutePolicy, UnknownRouter
from benchrouter.serving.service import decision_page, requests, responses
from benchrouter.serving.service.bodies import JsonRoute
from benchrouter.serving.service.errors import Refusal
from benchrouter.serving.service.logs import shown
from benchrouter.serving.service.metrics import Metrics
from benchrouter.serving.service.settings import Settings

if TYPE_CHECKING:
    from benchrouter.serving import Engine, RouterInfo
    from benchrouter.serving.messages import Prompt

MAX_EXPLAINED = 32  # requests to /v1/explain at once
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Result = TypeVar("Result")
Answer = dict[str, object]
PromptRequest = requests.RouteRequest | requests.ExplainRequest

posted = APIRouter(
    route_class=JsonRoute,
    responses=responses.refusals(400, 401, 403, 404, 408, 413, 415, 422, 429),
)
keyed = APIRouter(responses=responses.refusals(401, 403))
open_to_all = APIRouter()


class Service:
    """What the endpoints share.

    Parameters
    ----------
    engine : Engine
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics
        self.choosing = _Turns(settings.max_tasks)
        self.explaining = _Turns(MAX_EXPLAINED)
        self._most_waiting = settings.max_pending or engine.capacity

    def router_of(self, name: str | None) -> str:
        """Name of the router that a request asks for; 404 or 422 if there is none."""
        routers = self.engine.routers
        if name in routers:
            return name
        if name is None and len(routers) == 1:
            return next(iter(routers))
        if name is None:
            message = f"found no router, expected one of {list(routers)}"
            raise Refusal(422, "router_needed", message)
        message = f"found router {name[:100]!r}, expected one of {list(routers)}"
        raise Refusal(404, "router_not_found", message)

    def refuse_if_full(self, n: int) -> None:
        """Refuse n more prompts (429) if too many wait already."""
        waiting = self.engine.queued
        if waiting and waiting + n > self._most_waiting:
            message = (
                f"{waiting:,} prompts wait, at most {self._most_waiting:,} may: come back later"
            )
            raise Refusal(429, "overloaded", message)

    def note(self, request: Request, asked: requests.Body, **fields: object) -> Answer:
        """Fields that the log adds to the line of this request; more may be set."""
        note: Answer = request.state.note
        note.update(fields)
        if self.settings.log_prompts:
            given = asked.model_dump(include={"prompt", "prompts", "messages"}, exclude_none=True)
            note["asked"] = {
                name: shown(value if isinstance(value, str) else to_json(value).decode())
                for name, value in given.items()
            }
        return note


async def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service_of)]


@posted.post("/v1/route", response_model=responses.OneDecision | responses.ManyDecisions)
async def route(asked: requests.RouteRequest, request: Request, service: TheService) -> Answer:
    """Choose a model for a prompt, for messages, or for each of several prompts."""
    n = 1 if asked.prompts is None else len(asked.prompts)
    most = service.settings.max_prompts
    if n > most:
        message = f"found {n:,} prompts, expected at most {most:,}"
        raise Refusal(422, "too_many_prompts", message)
    name = service.router_of(asked.router)
    service.refuse_if_full(n)
    note = service.note(request, asked, router=name)
    options: dict[str, Any] = {"router": name, "policy": _policy_of(asked)}
    if asked.deadline_ms is not None:
        options["deadline_s"] = asked.deadline_ms / 1000
    if asked.prompts is None:
        one = await _offered(service.engine.route(_prompt_of(asked), **options))
        note.update(model=one.model, cause=one.cause)
        return {"decision": one.to_dict()}
    many = await _offered(service.engine.route_many(asked.prompts, **options))
    note.update(n_prompts=n, fallbacks=sum(routed.fallback for routed in many))
    return {"decisions": [routed.to_dict() for routed in many]}


@posted.post("/v1/choose", response_model=responses.TaskAnswer)
async def choose(asked: requests.ChooseRequest, request: Request, service: TheService) -> Answer:
    """Choose one model for all prompts of a task."""
    name = service.router_of(asked.router)
    labels = _labels_of(asked.labels, service.engine.routers[name].models)
    note = service.note(request, asked, router=name, n_prompts=len(asked.prompts))
    choosing = service.engine.choose(
        *(asked.prompts, labels),
        router=name,
        score=asked.score,
        label_threshold=asked.label_threshold,
        policy=_policy_of(asked),
    )
    found = await _offered(_unless_gone(request, service.choosing.start(choosing)))
    note["model"] = found.model
    version = service.engine.routers[name].version
    return {**found.to_dict(), "router": name, "version": version}


@posted.post("/v1/explain", response_model=responses.ExplainAnswer)
async def explain(asked: requests.ExplainRequest, request: Request, service: TheService) -> Answer:
    """Tell why a prompt goes where it goes."""
    name = service.router_of(asked.router)
    service.refuse_if_full(1)
    note = service.note(request, asked, router=name)
    prompt, policy = _prompt_of(asked), _policy_of(asked)
    explaining = service.engine.explain(prompt, router=name, policy=policy)
    found = await _offered(_unless_gone(request, service.explaining.start(explaining)))
    routed = await _offered(service.engine.route(prompt, router=name, policy=policy))
    note["model"] = routed.model
    inside = service.engine.routers[name].description
    return {
        **found.to_dict(),
        "router": name,
        "version": routed.version,
        "truncated": routed.truncated,
        "distance_limit": inside["distance_limit"],
        "benchmark_distances": [dataset["distance"] for dataset in inside["datasets"]],
        "decision": routed.to_dict(),
    }


@keyed.head("/v1/models", include_in_schema=False)
@keyed.get(
    "/v1/models",
    response_model=responses.ModelsAnswer,
    responses=responses.refusals(404, 422),
)
async def models(service: TheService, router: str | None = None) -> Answer:
    """List the models that may be answered."""
    routers = service.engine.routers
    infos = list(routers.values()) if router is None else [routers[service.router_of(router)]]
    return {
        "object": "list",
        "data": [model for info in infos for model in _models(info)],
        "routers": [_listed(info) for info in infos],
    }


@keyed.head("/metrics", include_in_schema=False)
@keyed.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: TheService) -> Response:
    """Tell everything counted, for Prometheus."""
    return Response(service.metrics.text(), media_type=METRICS_TYPE)


@open_to_all.head("/healthz", include_in_schema=False)
@open_to_all.get("/healthz", response_model=responses.Status)
async def healthz() -> Answer:
    """Tell that the process is alive."""
    return {"status": "alive"}


@open_to_all.head("/readyz", include_in_schema=False)
@open_to_all.get("/readyz", response_model=responses.Status, responses=responses.refusals(503))
async def readyz(service: TheService) -> Answer:
    """Tell whether prompts are routed."""
    if not service.engine.ready:
        raise Refusal(503, "not_ready", "the engine takes no work")
    return {"status": "ready"}


@open_to_all.head("/", include_in_schema=False)
@open_to_all.get("/", include_in_schema=False)
async def page() -> Response:
    """Show the page."""
    content, headers = decision_page.page()
    return Response(content, headers=headers)


def _prompt_of(asked: PromptRequest) -> Prompt:
    prompt = asked.messages if asked.prompt is None else asked.prompt
    assert prompt is not None
    return prompt


def _policy_of(asked: PromptRequest | requests.ChooseRequest) -> RoutePolicy | None:
    """Policy of a request, if it has one; 422 if the policy contradicts itself."""
    if asked.policy is None:
        return None
    try:
        return RoutePolicy.of(asked.policy.model_dump(exclude_unset=True))
    except (TypeError, ValueError) as e:
        raise Refusal(422, "invalid_policy", f"policy: {e}") from None


def _labels_of(
    labels: list[dict[str, float | None]] | None, models: tuple[str, ...]
) -> Array | None:
    """Labels by model as an array, shape (n_labels, n_models); NaN = not run."""
    if labels is None:
        return None
    columns = {name: i for i, name in enumerate(models)}
    found = np.full((len(labels), len(models)), np.nan)
    for row, scores in enumerate(labels):
        for name, score in scores.items():
            if name not in columns:
                message = f"labels.{row}: found {name[:100]!r}, expected some of {list(models)}"
                raise Refusal(422, "unknown_model", message)
            if score is not None:
                found[row, columns[name]] = score
    return found


class _Turns:
    """Limits work at once; work in threads takes a while to end after its client has gone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def start(self, working: Coroutine[object, object, Result]) -> asyncio.Task[Result]:
        if self._taken >= self._most:
            working.close()
            message = (
                f"{self._taken} such requests are worked on, and no more may be: come back later"
            )
            raise Refusal(429, "overloaded", message)
        self._taken += 1
        task = asyncio.ensure_future(working)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Result]) -> None:
        self._taken -= 1
        if not task.cancelled():
            task.exception()  # retrieved, though nobody may wait for it


async def _offered(working: Coroutine[object, object, Result]) -> Result:
    """Await the engine; 404 or 422 if the router cannot offer what is asked."""
    try:
        return await working
    except UnknownRouter as e:
        raise Refusal(404, "router_not_found", str(e)) from None
    except (TypeError, ValueError) as e:
        raise Refusal(422, "not_offered", str(e)) from None


async def _unless_gone(request: Request, task: asyncio.Task[Result]) -> Result:
    """Await long work; cancel it once the client has gone."""
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not task.done():
        task.cancel()
        raise ClientDisconnect
    return task.result()


def _models(info: RouterInfo) -> list[Answer]:
    shared = {"object": "model", "router": info.name}
    return [{**shared, "id": model["name"], **model} for model in info.description["models"]]


def _listed(info: RouterInfo) -> Answer:
    inside = info.description
    return {
        "name": info.name,
        "version": info.version,
        "n_records": inside["n_records"],
        "datasets": inside["datasets"],
        "best_on_average": inside["best_on_average"],
        "fallback": info.fallback,
        "distance_limit": inside["distance_limit"],
        "k": inside["settings"]["k"],
        "loaded_at": info.loaded_at,
        "error": info.error,
    }
