"""The tables of all endpoints: they are complete, and they are what happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.api.capabilities import ENDPOINTS, Endpoint
from server.api.parameters import Parameter, Support
from tests.api.conftest import Rig
from tests.api.exchange import BODIES
from tests.api.fake_engine import says

VALUES: dict[str, Any] = {
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "text.verbosity": "low",
    "request_id": "abc",
    "stream_options.include_usage": True,
    "stream_options.continuous_usage_stats": True,
    "stream_options.include_obfuscation": True,
    "prompt_logprobs": 1,
    "return_token_ids": True,
    "n": 2,
}
"""Values for fields whose type is checked."""


def rows(support: Support) -> Iterator[Any]:
    for endpoint in ENDPOINTS:
        for row in endpoint.table.rows:
            if row.support is support and not row.name.startswith(("messages.", "input.")):
                path = endpoint.table.path
                yield pytest.param(path, row, id=f"{path} {row.name}")


def send(rig: Rig, path: str, row: Parameter) -> Any:
    rig.engine.script = says([5])
    value = VALUES.get(row.name, "something")
    outer, _, inner = row.name.partition(".")
    body = {**BODIES[path], outer: {inner: value} if inner else value}
    if outer == "stream_options":
        body["stream"] = True
    return rig.api.client.post(path, json=body)


@pytest.mark.parametrize("path", [endpoint.table.path for endpoint in ENDPOINTS])
def test_the_bodies_here_are_answered(rig: Rig, path: str) -> None:
    rig.engine.script = says([5])
    response = rig.api.client.post(path, json=BODIES[path])
    assert response.status_code == 200, response.text
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize(("path", "row"), list(rows(Support.REFUSED)))
def test_a_refused_field_is_a_400(rig: Rig, path: str, row: Parameter) -> None:
    response = send(rig, path, row)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert f"'{row.name}'" in error["message"]
    assert row.meaning in error["message"]
    if path != "/v1/messages":
        assert (error["param"], error["code"]) == (row.name, "unsupported_parameter")
    assert rig.engine.received == []


@pytest.mark.parametrize(("path", "row"), list(rows(Support.IGNORED)))
def test_an_ignored_field_is_named(rig: Rig, path: str, row: Parameter) -> None:
    response = send(rig, path, row)
    assert response.status_code == 200, response.text
    assert response.headers["x-ignored-params"] == row.name


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.table.path)
def test_fields_of_the_model_and_rows_of_the_table_are_the_same(endpoint: Endpoint) -> None:
    fields = set(endpoint.request.model_fields)
    named = {row.name.partition(".")[0] for row in endpoint.table.rows}
    assert fields <= named
    honoured = {
        row.name.partition(".")[0]
        for row in endpoint.table.rows
        if row.support is Support.HONOURED and not row.same_as
    }
    # The conversation of /tokenize is read as a chat request.
    assert honoured <= fields or endpoint.table.path == "/tokenize"


@pytest.mark.parametrize("path", sorted(BODIES))
def test_an_unknown_field_is_named(rig: Rig, path: str) -> None:
    rig.engine.script = says([5])
    response = rig.api.client.post(path, json={**BODIES[path], "unheard_of": 1})
    assert response.headers["x-ignored-params"] == "unheard_of"
