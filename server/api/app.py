"""The ASGI application: routes, error bodies, documentation, and the engine client's life."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server import __version__
from server.api.chat import chat_routes
from server.api.middleware import Envelope
from server.api.operations import model_routes, operations_routes
from server.api.responses import error_response
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.errors import ApiError

TITLE = "internvl-serve"
SUMMARY = "OpenAI-compatible server for InternVL-Chat-V1-2"


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


def create_app(service: Service) -> FastAPI:
    """The application. Its lifespan starts the engine client and ends it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.client.start()
        try:
            yield
        finally:
            await service.client.stop()
            service.preparer.close()

    app = FastAPI(
        title=TITLE,
        summary=SUMMARY,
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        responses={"default": ERROR_RESPONSE},
        exception_handlers={
            ApiError: _answer_api_error,
            HTTPException: _answer_http_exception,
            ClientDisconnect: _answer_nobody,
        },
    )
    for router in (chat_routes(service), model_routes(service), operations_routes(service)):
        app.include_router(router)
    app.add_middleware(Envelope, metrics=service.metrics)
    app.openapi = functools.cache(functools.partial(_document, app))  # type: ignore[method-assign]
    return app


async def _answer_api_error(_: Request, failure: Exception) -> Response:
    assert isinstance(failure, ApiError)
    return error_response(failure)


async def _answer_http_exception(request: Request, failure: Exception) -> Response:
    """Starlette's 404 and 405, in OpenAI's shape."""
    assert isinstance(failure, HTTPException)
    where = f"{request.method} {request.scope['path'][:64]}"
    if failure.status_code == 405:
        message, code = f"Method not allowed: {where}.", "method_not_allowed"
    else:
        message, code = f"Unknown request URL: {where}. GET /docs lists the routes.", "unknown_url"
    headers = dict(failure.headers or {})
    return error_response(ApiError(failure.status_code, code, message, headers=headers))


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """The client went away: the status is for our own counters."""
    return Response(status_code=499)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document with the request's schema, which the routes read themselves."""
    document = get_openapi(title=TITLE, summary=SUMMARY, version=__version__, routes=app.routes)
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"))
    schemas[ChatRequest.__name__] = schema
    schemas["Error"] = ERROR_SCHEMA
    return document
