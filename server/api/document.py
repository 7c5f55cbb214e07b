"""The OpenAPI document: the routes, the request models that the routes read themselves, and for
each field as `x-support` what becomes of it.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.capabilities import ENDPOINTS, Endpoint

ERROR_RESPONSE = {
    "description": "OpenAI's error body",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
NULLABLE_STRING = {"type": ["string", "null"]}
ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": NULLABLE_STRING,
                "code": NULLABLE_STRING,
            },
        }
    },
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of an application whose routes are complete."""
    document = get_openapi(
        title=app.title, summary=app.summary, version=app.version, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for endpoint in ENDPOINTS:
        schemas.update(_request_schemas(endpoint))
    schemas["Error"] = ERROR_SCHEMA
    return document


def _request_schemas(endpoint: Endpoint) -> dict[str, Any]:
    schema = endpoint.request.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, field in schema["properties"].items():
        row = endpoint.table.by_name.get(name)
        if row is not None:
            field["x-support"] = row.support.value
    return {**schema.pop("$defs", {}), endpoint.request.__name__: schema}
