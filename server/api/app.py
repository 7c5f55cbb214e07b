"""The ASGI application: routes, error bodies, documentation, and the engine client's life."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server import __version__
from server.api.anthropic_routes import anthropic_routes
from server.api.capabilities import capability_routes
from server.api.chat import chat_routes
from server.api.completions import completion_routes
from server.api.document import ERROR_RESPONSE, openapi_document
from server.api.gate import HEALTH_PATHS, Gate
from server.api.middleware import Bounds, Envelope
from server.api.operations import health_routes, internal_routes, model_routes
from server.api.playground import playground_paths, playground_routes
from server.api.response_routes import response_routes
from server.api.responses import error_response
from server.api.service import Service
from server.api.tokenize import tokenize_routes
from server.errors import ApiError

GREETING_S = 2.0

TITLE = "internvl-serve"
SUMMARY = "OpenAI-compatible server for InternVL-Chat-V1-2"


def create_app(service: Service) -> FastAPI:
    """The application. Its lifespan starts the engine client and ends it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.client.start()
        try:
            async with service.responses.shared():
                await _await_engine(service)
                yield
        finally:
            await service.client.stop()
            service.preparer.close()
            await asyncio.to_thread(service.tracer.close)

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
    internal = () if service.settings.ops_port is not None else (internal_routes,)
    for routes in (
        chat_routes,
        completion_routes,
        response_routes,
        anthropic_routes,
        model_routes,
        tokenize_routes,
        capability_routes,
        health_routes,
        *internal,
    ):
        app.include_router(routes(service))
    open_paths = HEALTH_PATHS
    if service.settings.playground:
        open_paths |= playground_paths()
        app.include_router(playground_routes())
    # The last one added is the outermost.
    app.add_middleware(Gate, keys=service.keys, quotas=service.quotas, open_paths=open_paths)
    app.add_middleware(Bounds, limits=service.settings)
    app.add_middleware(Envelope, metrics=service.metrics, leaving=service.client.leaving)
    app.openapi = functools.cache(functools.partial(openapi_document, app))  # type: ignore[method-assign]
    return app


def create_operations_app(service: Service) -> FastAPI:
    """What operators ask, for a port of its own that can stay inside."""
    app = FastAPI(
        title=TITLE,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={ApiError: _answer_api_error, HTTPException: _answer_http_exception},
    )
    for routes in (health_routes, internal_routes):
        app.include_router(routes(service))
    app.add_middleware(Bounds, limits=service.settings)
    app.add_middleware(Envelope, metrics=service.metrics, leaving=service.client.leaving)
    return app


async def _await_engine(service: Service) -> None:
    """Lets a process that joins others begin when it can answer, as they do already; where no
    engine runs none can, and somebody has to say so."""
    if service.settings.api_workers > 1 and service.heartbeat.beats:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.client.greeted.wait(), GREETING_S)


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
