"""What operators, routers and SDKs ask beside answers: models, health, version, load, metrics."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from server import __version__, errors
from server.api.client import EngineState
from server.api.responses import json_response
from server.api.service import Service
from server.api.shapes import Load, ModelList, ModelShape, Version, answers
from server.api.validation import model_not_found
from server.frontend.video import video_is_installed
from server.series import CONTENT_TYPE

DEMO_NOTE = (
    "A demo model that knows only drawn shapes, numbers and words. "
    "Serve a real checkpoint with --model."
)


def model_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.get(
        "/v1/models", summary="List the models that requests may name", responses=answers(ModelList)
    )
    async def list_models() -> Response:
        models = [_model(service, name) for name in service.names]
        return json_response({"object": "list", "data": models})

    @router.get(
        "/v1/models/{name:path}", summary="Describe one model", responses=answers(ModelShape)
    )
    async def get_model(name: str) -> Response:
        if name not in service.names:
            raise model_not_found(name)
        return json_response(_model(service, name))

    return router


def _model(service: Service, name: str) -> dict[str, Any]:
    ready = service.client.ready
    model: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": service.started_at,
        "owned_by": "internvl-serve",
        "root": service.names[0],
        "max_model_len": ready.max_model_len if ready else None,
        "architecture": {
            "input_modalities": ["text", "image", *(["video"] if video_is_installed() else [])],
            "output_modalities": ["text"],
        },
    }
    if service.settings.model is None:
        model["note"] = DEMO_NOTE
    return model


def health_routes(service: Service) -> APIRouter:
    """For probes: no bodies, no keys."""
    router = APIRouter(tags=["Operations"])
    client = service.client

    @router.get("/health", summary="503 when the engine is dead", response_class=Response)
    @router.head("/health", include_in_schema=False)
    async def health() -> Response:
        if client.state is EngineState.LOST:
            raise errors.engine_restarted()
        if service.engine_stalled:
            raise errors.engine_stalled()
        return Response()

    @router.get("/livez", summary="503 when only a restart would help", response_class=Response)
    @router.head("/livez", include_in_schema=False)
    async def livez() -> Response:
        if service.engine_stalled:
            raise errors.engine_stalled()
        return Response()

    @router.get(
        "/readyz", summary="503 unless a request would be worked on now", response_class=Response
    )
    @router.head("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        if client.state is EngineState.DRAINING:
            raise errors.shutting_down()
        if client.state is not EngineState.READY:
            raise errors.model_loading()
        if service.engine_stalled:
            raise errors.engine_stalled()
        return Response()

    return router


def internal_routes(service: Service) -> APIRouter:
    """What need not be known outside."""
    router = APIRouter(tags=["Operations"])
    client = service.client

    @router.get(
        "/version", summary="What is served, and within which limits", responses=answers(Version)
    )
    async def version() -> Response:
        engine = msgspec.structs.asdict(client.ready) if client.ready else None
        return json_response(
            {
                "version": __version__,
                "models": service.names,
                "system_fingerprint": service.fingerprint,
                "engine": engine,
            }
        )

    @router.get(
        "/load", summary="Requests that run and wait, for routers (vLLM)", responses=answers(Load)
    )
    async def load() -> Response:
        gauges = client.latest
        return json_response({"server_load": gauges.requests_running + gauges.requests_waiting})

    @router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    return router
