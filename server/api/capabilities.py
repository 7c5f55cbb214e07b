"""GET /v1/capabilities: what becomes of each field of each endpoint, as data, and within which
limits. The tables that answer here are those that requests are checked with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from server.api.anthropic_parameters import MESSAGES
from server.api.anthropic_request import MessagesRequest
from server.api.chat_parameters import CHAT
from server.api.completion_parameters import COMPLETIONS
from server.api.completion_request import CompletionRequest
from server.api.conversation import VIDEOS_MAX
from server.api.engine_request import LISTED_IDS_MAX
from server.api.parameters import Parameter, Table
from server.api.response_parameters import RESPONSES
from server.api.response_request import ResponseRequest
from server.api.responses import json_response
from server.api.schema_base import Model
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.api.shapes import Capabilities, answers
from server.api.tokenize_parameters import DETOKENIZE, TOKENIZE
from server.api.tokenize_request import DetokenizeRequest, TokenizeRequest
from server.api.tool_schemas import TOOLS_MAX
from server.api.validation import STOP_CHARS_MAX
from server.frontend import grammar, schema_check
from server.frontend.video import video_is_installed
from server.frontend.video_sampling import SEGMENTS_MAX
from server.limits import Limits


@dataclass(frozen=True, slots=True)
class Endpoint:
    table: Table
    request: type[Model]


ENDPOINTS = (
    Endpoint(CHAT, ChatRequest),
    Endpoint(COMPLETIONS, CompletionRequest),
    Endpoint(RESPONSES, ResponseRequest),
    Endpoint(MESSAGES, MessagesRequest),
    Endpoint(TOKENIZE, TokenizeRequest),
    Endpoint(DETOKENIZE, DetokenizeRequest),
)


def capability_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.get(
        "/v1/capabilities",
        summary="What becomes of each request field, and all limits",
        responses=answers(Capabilities),
    )
    async def capabilities() -> Response:
        return json_response(
            {
                "object": "capabilities",
                "model": service.names[0],
                "strict_params": service.settings.strict_params,
                "limits": _limits(service),
                "endpoints": {
                    endpoint.table.path: {row.name: support(row) for row in endpoint.table.rows}
                    for endpoint in ENDPOINTS
                },
            }
        )

    return router


def support(row: Parameter) -> dict[str, Any]:
    """A row without its name and without what it leaves open."""
    value: dict[str, Any] = {"support": row.support.value, "meaning": row.meaning}
    if row.differs:
        value["differs"] = row.differs
    if row.same_as:
        value["same_as"] = row.same_as
    if row.neutral:
        value["accepted_values"] = [None, *row.neutral]
    return value


def _limits(service: Service) -> dict[str, Any]:
    settings, ready = service.settings, service.client.ready
    return {
        "max_model_len": ready.max_model_len if ready else None,
        "max_video_segments": SEGMENTS_MAX,
        "max_videos": VIDEOS_MAX if video_is_installed() else 0,
        **settings.model_dump(include=set(Limits.model_fields)),
        "max_listed_token_ids": LISTED_IDS_MAX,
        "max_stop_chars": STOP_CHARS_MAX,
        "max_tools": TOOLS_MAX,
        "max_grammar_bytes": grammar.TEXT_BYTES_MAX,
        "max_schema_depth": schema_check.DEPTH_MAX,
        "max_schema_properties": schema_check.PROPERTIES_MAX,
        "max_schema_enum": schema_check.ENUM_MAX,
        "max_schema_repeats": schema_check.REPEATS_MAX,
    }
