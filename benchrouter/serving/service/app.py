"""The HTTP service around an engine, as an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from benchrouter.files.version import VERSION
from benchrouter.serving.service.decision_page import serve_page
from benchrouter.serving.service.endpoints import Endpoints
from benchrouter.serving.service.errors import FAILED, Refused, error, of_status
from benchrouter.serving.service.front import Front
from benchrouter.serving.service.keys import Keys
from benchrouter.serving.service.metrics import Metrics
from benchrouter.serving.service.openapi import document, operation
from benchrouter.serving.service.settings import Settings

if TYPE_CHECKING:
    from benchrouter.serving import Engine


def make_app(
    engine: Engine, settings: Settings | None = None, *, metrics: Metrics | None = None
) -> ASGIApp:
    """Make the application; it stands alone, or is mounted in another.

    Parameters
    ----------
    engine : Engine
        Who made it closes it.
    settings : Settings, optional
    metrics : Metrics, optional
        One of the engine's observers; without it only requests are counted.

    Returns
    -------
    ASGI application
    """
    settings = settings or Settings()
    metrics = metrics or Metrics()
    metrics.watch(engine)
    serve = Endpoints(engine, settings, metrics)
    app = FastAPI(
        title="benchrouter",
        version=VERSION,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    posted = {
        "/v1/route": serve.route,
        "/v1/choose": serve.choose,
        "/v1/explain": serve.explain,
    }
    for path, answer in posted.items():
        app.add_api_route(path, answer, methods=["POST"], **operation(path))
    for path, tell in (
        ("/v1/models", serve.models),
        ("/healthz", serve.healthz),
        ("/readyz", serve.readyz),
        ("/metrics", serve.metrics),
    ):
        app.add_api_route(path, tell, methods=["GET"], **operation(path))
        app.add_api_route(path, tell, methods=["HEAD"], include_in_schema=False)
    serve_page(app)
    app.openapi = lambda: document(app, settings)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_bad_query)
    app.add_exception_handler(Exception, _on_failure)
    return Front(
        app,
        direct={("POST", path): answer for path, answer in posted.items()},
        keys=Keys(settings.keys),
        metrics=metrics,
        log_requests=settings.log_requests,
        only_local_names=settings.only_local_names,
    )


async def _on_refused(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return error(refused)


async def _on_http_exception(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    return error(of_status(e.status_code), e.headers)


async def _on_bad_query(request: Request, e: Exception) -> Response:
    assert isinstance(e, RequestValidationError)
    first = e.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return error(Refused(422, "invalid_request", f"{where}: {first['msg']}"))


async def _on_failure(request: Request, e: Exception) -> Response:
    return error(of_status(500, FAILED))
