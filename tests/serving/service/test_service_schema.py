"""Schemathesis: what the OpenAPI document allows is answered, all else is refused as it says."""

from __future__ import annotations

import pytest

from benchrouter.serving import Engine

for package in ("fastapi", "httpx", "prometheus_client", "schemathesis", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[dev]')")

import schemathesis  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.checks import CHECKS  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from served import write_router  # noqa: E402

from benchrouter.serving.service import Settings, make_app  # noqa: E402

KEY = "k" * 40
POSTED = ["/v1/route", "/v1/choose", "/v1/explain"]
PATHS = [*POSTED, "/v1/models", "/metrics", "/healthz", "/readyz"]
CASES = [
    *((path, GenerationMode.POSITIVE) for path in PATHS),
    *((path, GenerationMode.NEGATIVE) for path in POSTED),
]
# What no schema can tell: a prompt without text, names of other models, rivals in a policy.
OF_A_ROUTER = ("not_offered", "unknown_model", "invalid_policy")


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    directory = write_router(tmp_path_factory.mktemp("schema"))
    with Engine(directory, deadline_s=30.0, reload_every_s=None) as engine:
        app = make_app(engine, Settings(keys=(KEY,), max_prompts=20, log_requests=False))
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


def validate(schema, path, mode, n_examples, **options):
    """Ask n times what the document allows, or in negative mode what it does not."""
    (operation,) = schema[path].values()
    acceptance = CHECKS.get_one("positive_data_acceptance")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=n_examples, deadline=None, suppress_health_check=list(HealthCheck), **options
    )
    def run(case):
        response = case.call(headers={"Authorization": f"Bearer {KEY}"})
        unasked = response.status_code == 422 and response.json()["error"]["code"] in OF_A_ROUTER
        case.validate_response(response, excluded_checks=[acceptance] if unasked else [])

    run()


@pytest.mark.parametrize(("path", "mode"), CASES)
def test_requests_are_answered_as_documented(schema, path, mode):
    validate(schema, path, mode, 25, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "mode"), [case for case in CASES if case[0].startswith("/v1")])
def test_many_requests_are_answered_as_documented(schema, path, mode):
    validate(schema, path, mode, 400)
