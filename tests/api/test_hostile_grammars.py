"""A grammar that keeps the library busy for hours costs a second, and only its sender."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.fake_engine import FakeEngine, says
from tests.api.harness import Background, RunningApi, chat
from tests.frontend.test_grammar_check import ENDLESS_SCHEMA

HOSTILE = f"start: %json {json.dumps(ENDLESS_SCHEMA)}"
"""Inside a grammar of the client's own the limits of schemas do not count, only the time does."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    run_dir: Path = tmp_path_factory.mktemp("run")
    with (
        FakeEngine(run_dir, script=says([5])),
        RunningApi(run_dir, grammar_timeout_s=1.0) as api,
    ):
        api.wait_until_ready()
        yield api


def test_it_is_a_400_in_time_and_others_are_served_meanwhile(api: RunningApi) -> None:
    api.post(chat("Hi", guided_regex="a"))  # starts the process that builds grammars
    began = time.monotonic()
    with Background(api, chat("Hi", structured_outputs={"grammar": HOSTILE})) as hostile:
        for _ in range(5):
            assert api.post(chat("Hi")).status_code == 200
        assert time.monotonic() - began < 1, "they did not wait for it"
        error = hostile.response().json()["error"]
    assert hostile.response().status_code == 400
    assert error["param"] == "structured_outputs.grammar"
    assert error["code"] == "invalid_grammar"
    assert "takes longer than 1 s to build" in error["message"]
    assert api.post(chat("Hi", guided_regex="b+")).status_code == 200


def test_a_schema_that_is_known_to_take_long_is_refused_at_once(api: RunningApi) -> None:
    began = time.monotonic()
    response = api.post(chat("Hi", guided_json=ENDLESS_SCHEMA))
    assert time.monotonic() - began < 0.9
    assert response.status_code == 400
    assert "'multipleOf' at '#/properties/a" in response.json()["error"]["message"]
