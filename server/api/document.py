"""The OpenAPI document: the routes with the shapes of their answers, the request models that the
routes read themselves, and for each field as `x-support` what becomes of it.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.anthropic_parameters import MESSAGES
from server.api.anthropic_request import CountRequest
from server.api.capabilities import ENDPOINTS, Endpoint
from server.api.shapes import Error

ERROR_RESPONSE: dict[str, Any] = {"model": Error, "description": "OpenAI's error body"}
COUNTING = Endpoint(MESSAGES, CountRequest)
"""Reads a part of another endpoint's fields."""


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of an application whose routes are complete."""
    document = get_openapi(
        title=app.title, summary=app.summary, version=app.version, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for endpoint in (*ENDPOINTS, COUNTING):
        schemas.update(_request_schemas(endpoint))
    _drop_unused_answers(document)
    return document


def _drop_unused_answers(document: dict[str, Any]) -> None:
    """FastAPI's own answer to what it would check itself: nothing is left to it."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _request_schemas(endpoint: Endpoint) -> dict[str, Any]:
    schema = endpoint.request.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, field in schema["properties"].items():
        row = endpoint.table.by_name.get(name)
        if row is not None:
            field["x-support"] = row.support.value
    return {**schema.pop("$defs", {}), endpoint.request.__name__: schema}
