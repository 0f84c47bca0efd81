"""The HTTP service around an engine, as a FastAPI application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from benchrouter.files.version import VERSION
from benchrouter.serving.service import endpoints, errors
from benchrouter.serving.service.bodies import BodyLimit
from benchrouter.serving.service.keys import Admission
from benchrouter.serving.service.metrics import Metrics
from benchrouter.serving.service.observed import Observed
from benchrouter.serving.service.settings import Settings

if TYPE_CHECKING:
    from benchrouter.serving import Engine

ABOUT = """\
Chooses one of many LLMs for every prompt, by the benchmark records near it. `POST /v1/route` always
names a model: where evidence cannot choose (a prompt far from the benchmark, a deadline, a device
that failed), it is the fallback model, with the cause."""


def make_app(
    engine: Engine, settings: Settings | None = None, *, metrics: Metrics | None = None
) -> FastAPI:
    """Make the application; it stands alone, or is mounted in another.

    Parameters
    ----------
    engine : Engine
        Whoever made it closes it.
    settings : Settings, optional
    metrics : Metrics, optional
        One of the engine's observers; without it only requests are counted.
    """
    settings = settings or Settings()
    metrics = metrics or Metrics()
    metrics.watch(engine)
    app = FastAPI(
        title="benchrouter",
        version=VERSION,
        description=ABOUT,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    app.state.service = endpoints.Service(engine, settings, metrics)
    app.state.body_limit = BodyLimit(settings.max_body_bytes)
    # `Admission` asks for the key; this tells the OpenAPI document that it does.
    key = HTTPBearer(scheme_name="key", auto_error=False)
    for router in (endpoints.posted, endpoints.keyed):
        app.include_router(router, dependencies=[Depends(key)] if settings.keys else [])
    app.include_router(endpoints.open_to_all)
    app.add_middleware(Admission, keys=settings.keys, only_local_names=settings.only_local_names)
    app.add_middleware(Observed, metrics=metrics, log_requests=settings.log_requests)
    errors.add_handlers(app)
    _tell_limit(app, settings.max_prompts)
    return app


def _tell_limit(app: FastAPI, max_prompts: int) -> None:
    """Add the limit of this service to its OpenAPI document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        fields = document["components"]["schemas"]["RouteRequest"]["properties"]
        fields["prompts"]["anyOf"][0]["maxItems"] = max_prompts
        return document

    app.openapi = openapi
