from __future__ import annotations

from typing import Any

import pytest

from server.api.schemas import ChatRequest
from tests.api.conftest import Rig


def error_of(response: Any) -> dict[str, Any]:
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("path", ["/nope", "/v1/chat/completions/", "/v1", "/v1/embeddings"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route(rig: Rig, method: str, path: str) -> None:
    response = rig.api.client.request(method, path)
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"
    assert f"{method} {path}" in error_of(response)["message"]


def test_a_long_path_is_not_repeated_in_full(rig: Rig) -> None:
    message = error_of(rig.api.client.get("/" + "x" * 500))["message"]
    assert "x" * 63 in message
    assert "x" * 64 not in message


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("PUT", "/v1/models"), ("POST", "/health")],
)
def test_a_method_that_a_route_has_not(rig: Rig, method: str, path: str) -> None:
    response = rig.api.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"]
    assert error_of(response)["code"] == "method_not_allowed"


def test_errors_carry_the_request_id(rig: Rig) -> None:
    response = rig.api.client.get("/nope", headers={"x-request-id": "my-id"})
    assert response.headers["x-request-id"] == "my-id"


def test_the_document_describes_the_request(rig: Rig) -> None:
    document = rig.api.client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/v1/chat/completions"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert schemas[reference.rpartition("/")[2]]["required"] == ["model", "messages"]
    assert set(schemas["ChatRequest"]["properties"]) == set(ChatRequest.model_fields)
    assert "422" not in str(document["paths"])


def test_every_reference_of_the_document_resolves(rig: Rig) -> None:
    document = rig.api.client.get("/openapi.json").json()

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names
    assert names <= set(document["components"]["schemas"])


def test_the_document_can_be_read_in_a_browser(rig: Rig) -> None:
    assert "openapi.json" in rig.api.client.get("/docs").text
