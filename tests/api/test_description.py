"""Our own OpenAPI description against the server: whatever is sent, nothing fails and no answer is
outside the described shapes. `make test-description` sends much more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.config import GenerationConfig, SchemathesisConfig

from server.api.app import create_app
from server.api.client import EngineClient
from server.api.service import Service
from server.heartbeat import Heartbeat
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.settings import Settings
from tests.api.fake_engine import FakeEngine, answers_all
from tests.api.harness import MODEL, RunningApi
from tests.golden import CHECKPOINT

EXAMPLES = int(os.environ.get("DESCRIPTION_EXAMPLES", "3"))
"""For each operation. With more than a few, the boundaries of every single field are tried too."""
THOROUGH_FROM = 10
CHECK_NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


def description() -> Any:
    """For pytest to make tests from, before any server runs."""
    with tempfile.TemporaryDirectory() as run_dir:
        endpoint = ApiEndpoint(Path(run_dir), "nobody")
        heartbeat = Heartbeat(Path(run_dir))
        service = Service.load(Settings(), CHECKPOINT, EngineClient(endpoint, Limits()), heartbeat)
        document = create_app(service).openapi()
        service.preparer.close()
        endpoint.close()
    config = SchemathesisConfig()
    project = config.projects.default
    project.generation = GenerationConfig(deterministic=True, max_examples=EXAMPLES, no_shrink=True)
    project.phases.coverage.enabled = EXAMPLES >= THOROUGH_FROM
    return schemathesis.openapi.from_dict(document, config=config)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    run_dir = tmp_path_factory.mktemp("run")
    with FakeEngine(run_dir, answers_all), RunningApi(run_dir, max_body_bytes=2**20) as api:
        api.wait_until_ready()
        yield api


described: Any = description().parametrize()


@pytest.mark.timeout(1200)
@described  # type: ignore[untyped-decorator]
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described(api: RunningApi, case: schemathesis.Case[Any]) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL  # any other name is a 404, whatever else is sent
    checks: Any = CHECKS.get_by_names(CHECK_NAMES)
    case.call_and_validate(base_url=api.url, checks=checks)
