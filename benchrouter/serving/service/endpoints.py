"""What each path answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from benchrouter.serving import RoutePolicy, UnknownRouter
from benchrouter.serving.service import schemas
from benchrouter.serving.service.bodies import Bodies
from benchrouter.serving.service.errors import Refused, error
from benchrouter.serving.service.front import NOTE
from benchrouter.serving.service.logs import shown
from benchrouter.serving.service.metrics import Metrics
from benchrouter.serving.service.settings import Settings

if TYPE_CHECKING:
    from benchrouter.serving import Engine, RouterInfo
    from benchrouter.serving.messages import Prompt

MAX_EXPLAINED = 32  # requests to /v1/explain at once
Result = TypeVar("Result")


class Endpoints:
    """The operations of a service, as methods from a request to its response.

    Parameters
    ----------
    engine : Engine
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._bodies = Bodies(settings.max_body_bytes)
        self._most_waiting = settings.max_pending or engine.capacity
        self._choosing = _Turns(settings.max_tasks)
        self._explaining = _Turns(MAX_EXPLAINED)

    async def route(self, request: Request) -> Response:
        """Choose a model for a prompt, for messages, or for each of several prompts."""
        asked = await self._bodies.parse(request, schemas.RouteRequest)
        n = 1 if asked.prompts is None else len(asked.prompts)
        most = self._settings.max_prompts
        if n > most:
            raise Refused(
                422, "too_many_prompts", f"found {n:,} prompts, expected at most {most:,}"
            )
        name = self._router_of(asked.router)
        self._refuse_if_full(n)
        note = self._note(request, asked, router=name)
        options: dict[str, Any] = {"router": name, "policy": _policy_of(asked)}
        if asked.deadline_ms is not None:
            options["deadline_s"] = asked.deadline_ms / 1000
        if asked.prompts is None:
            one = await _offered(self._engine.route(_prompt_of(asked), **options))
            note.update(model=one.model, cause=one.cause)
            return _json({"decision": one.to_dict()})
        many = await _offered(self._engine.route_many(asked.prompts, **options))
        note.update(n_prompts=n, fallbacks=sum(routed.fallback for routed in many))
        return _json({"decisions": [routed.to_dict() for routed in many]})

    async def choose(self, request: Request) -> Response:
        """Choose one model for all prompts of a task."""
        asked = await self._bodies.parse(request, schemas.ChooseRequest)
        name = self._router_of(asked.router)
        labels = _labels_of(asked.labels, self._engine.routers[name].models)
        note = self._note(request, asked, router=name, n_prompts=len(asked.prompts))
        choosing = self._engine.choose(
            *(asked.prompts, labels),
            router=name,
            score=asked.score,
            label_threshold=asked.label_threshold,
            policy=_policy_of(asked),
        )
        found = await _offered(_unless_gone(request, self._choosing.start(choosing)))
        note["model"] = found.model
        return _json({**found.to_dict(), **_identity(self._engine.routers[name])})

    async def explain(self, request: Request) -> Response:
        """Tell why a prompt goes where it goes."""
        asked = await self._bodies.parse(request, schemas.ExplainRequest)
        name = self._router_of(asked.router)
        self._refuse_if_full(1)
        note = self._note(request, asked, router=name)
        prompt, policy = _prompt_of(asked), _policy_of(asked)
        explaining = self._engine.explain(prompt, router=name, policy=policy)
        found = await _offered(_unless_gone(request, self._explaining.start(explaining)))
        routed = await _offered(self._engine.route(prompt, router=name, policy=policy))
        note["model"] = routed.model
        inside = self._engine.routers[name].description
        return _json(
            {
                **found.to_dict(),
                "router": name,
                "version": routed.version,
                "truncated": routed.truncated,
                "distance_limit": inside["distance_limit"],
                "benchmark_distances": [dataset["distance"] for dataset in inside["datasets"]],
                "decision": routed.to_dict(),
            }
        )

    async def models(self, router: str | None = None) -> Response:
        """List the models that may be answered."""
        routers = self._engine.routers
        infos = list(routers.values()) if router is None else [routers[self._router_of(router)]]
        return _json(
            {
                "object": "list",
                "data": [model for info in infos for model in _models(info)],
                "routers": [_listed(info) for info in infos],
            }
        )

    async def healthz(self) -> Response:
        """Tell that the process is alive."""
        return _json({"status": "alive"})

    async def readyz(self) -> Response:
        """Tell whether prompts are routed."""
        if self._engine.ready:
            return _json({"status": "ready"})
        return error(Refused(503, "not_ready", "the engine takes no work"))

    async def metrics(self) -> Response:
        """Everything counted, for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _router_of(self, name: str | None) -> str:
        routers = self._engine.routers
        if name in routers:
            return name
        if name is None and len(routers) == 1:
            return next(iter(routers))
        if name is None:
            raise Refused(422, "router_needed", f"found no router, expected one of {list(routers)}")
        raise Refused(
            404, "router_not_found", f"found router {name[:100]!r}, expected one of {list(routers)}"
        )

    def _refuse_if_full(self, n: int) -> None:
        waiting = self._engine.queued
        if waiting and waiting + n > self._most_waiting:
            raise Refused(
                429,
                "overloaded",
                f"{waiting:,} prompts wait, at most {self._most_waiting:,} may: come back later",
            )

    def _note(self, request: Request, asked: Any, **fields: Any) -> dict[str, Any]:
        """What the log is to say of the request."""
        note: dict[str, Any] = request.scope[NOTE]
        note.update(fields)
        if self._settings.log_prompts:
            given = asked.model_dump(include={"prompt", "prompts", "messages"}, exclude_none=True)
            note["asked"] = {
                name: value if isinstance(value, str) else to_json(value).decode()
                for name, value in given.items()
            }
            note["asked"] = {name: shown(text) for name, text in note["asked"].items()}
        return note


def _prompt_of(asked: schemas.RouteRequest | schemas.ExplainRequest) -> Prompt:
    prompt = asked.messages if asked.prompt is None else asked.prompt
    assert prompt is not None
    return prompt


def _policy_of(
    asked: schemas.RouteRequest | schemas.ExplainRequest | schemas.ChooseRequest,
) -> RoutePolicy | None:
    """Policy of a request, None where it brings none; contradictions are refused."""
    if asked.policy is None:
        return None
    try:
        return RoutePolicy.of(asked.policy.model_dump(exclude_unset=True))
    except (TypeError, ValueError) as e:
        raise Refused(422, "invalid_policy", f"policy: {e}") from None


def _labels_of(
    labels: list[dict[str, float | None]] | None, models: tuple[str, ...]
) -> NDArray[np.float64] | None:
    """Labels by model as an array, NaN = not run."""
    if labels is None:
        return None
    columns = {name: i for i, name in enumerate(models)}
    found = np.full((len(labels), len(models)), np.nan)
    for row, scores in enumerate(labels):
        for name, score in scores.items():
            if name not in columns:
                raise Refused(
                    422,
                    "unknown_model",
                    f"labels.{row}: found {name[:100]!r}, expected some of {list(models)}",
                )
            if score is not None:
                found[row, columns[name]] = score
    return found


class _Turns:
    """Work in threads, which take a while to end when their client has gone: so much at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def start(self, working: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        if self._taken >= self._most:
            working.close()
            raise Refused(
                429,
                "overloaded",
                f"{self._taken} such requests are worked on, and no more may be: come back later",
            )
        self._taken += 1
        task = asyncio.ensure_future(working)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._taken -= 1
        if not task.cancelled():
            task.exception()  # seen, though nobody may wait for it


async def _offered(working: Coroutine[Any, Any, Result]) -> Result:
    """Await the engine; what a router cannot offer is the request's fault."""
    try:
        return await working
    except UnknownRouter as e:
        raise Refused(404, "router_not_found", str(e)) from None
    except (TypeError, ValueError) as e:
        raise Refused(422, "not_offered", str(e)) from None


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


def _identity(info: RouterInfo) -> dict[str, str]:
    return {"router": info.name, "version": info.version}


def _models(info: RouterInfo) -> list[dict[str, Any]]:
    return [
        {
            "id": model["name"],
            "object": "model",
            "router": info.name,
            **{name: value for name, value in model.items() if name != "name"},
        }
        for model in info.description["models"]
    ]


def _listed(info: RouterInfo) -> dict[str, Any]:
    inside = info.description
    return {
        "name": info.name,
        "version": info.version,
        "n_records": inside["n_records"],
        "datasets": [
            {name: dataset[name] for name in ("name", "n_records", "distance")}
            for dataset in inside["datasets"]
        ],
        "best_on_average": inside["best_on_average"],
        "fallback": info.fallback,
        "distance_limit": inside["distance_limit"],
        "k": inside["settings"]["k"],
        "loaded_at": info.loaded_at,
        "error": info.error,
    }


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content, inf_nan_mode="null"), media_type="application/json")
