"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's shape over the same plumbing."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer import Answer
from server.api.anthropic_items import chat_body
from server.api.anthropic_parameters import MESSAGES
from server.api.anthropic_reply import AnthropicReply, error_body
from server.api.anthropic_request import CountRequest, MessagesRequest
from server.api.choices import empty_choice
from server.api.delivery import Work, deliver, handle, ignored_header, read_counted
from server.api.fields import check_model, documented, read_fields
from server.api.paths import as_sent
from server.api.response_shapes import AnthropicError, AnthropicMessage, AnthropicTokens
from server.api.responses import json_response
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.api.shapes import answers
from server.api.validation import check_fields, parse_chat
from server.errors import ApiError

Fields = TypeVar("Fields", bound=CountRequest)


def anthropic_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["Anthropic"])

    @router.post(
        "/v1/messages",
        summary="Create a message",
        openapi_extra=documented(MessagesRequest),
        responses=answers(AnthropicMessage, streams=True, failure=AnthropicError),
    )
    async def create_message(request: Request) -> Response:
        return await _in_shape(
            request, handle(service, request, "message", partial(_respond, service))
        )

    @router.post(
        "/v1/messages/count_tokens",
        summary="Count the tokens that a message would read",
        openapi_extra=documented(CountRequest),
        responses=answers(AnthropicTokens, failure=AnthropicError),
    )
    async def count_tokens(request: Request) -> Response:
        return await _in_shape(request, _count(service, request))

    return router


async def _in_shape(request: Request, work: Awaitable[Response]) -> Response:
    """What `work` answers, or its failure as Anthropic's error body."""
    request_id: str = request.state.request_id
    try:
        response = await work
    except ApiError as failure:
        body = error_body(failure, request_id)
        response = json_response(body, failure.status, failure.headers)
    response.headers["request-id"] = request_id
    return response


async def _count(service: Service, request: Request) -> Response:
    body = await read_counted(service, request)
    service.client.admit(0)
    chat, paths = _translate(service, CountRequest, body)[1:]
    try:
        prompt = await service.preparer.prompt(chat)
    except ApiError as failure:
        raise as_sent(failure, paths) from None
    return json_response(
        {"input_tokens": len(prompt.token_ids)}, headers=ignored_header(MESSAGES, body)
    )


async def _respond(service: Service, body: Mapping[str, Any], record: ChatRecord) -> Response:
    request, chat, paths = _translate(service, MessagesRequest, body)
    max_model_len = service.client.admit(1).max_model_len
    try:
        prepared = await service.preparer.prepare(chat, max_model_len)
    except ApiError as failure:
        raise as_sent(failure, paths) from None
    answer = Answer(prepared.prompt, [empty_choice(service, chat, goes_on=chat.continues)])
    reply = AnthropicReply(
        answer,
        model=service.names[0],
        with_tools=prepared.tools is not None,
        request_id=record.request_id,
    )
    work = Work(
        prepared.submits,
        answer,
        reply,
        stream=bool(request.stream),
        headers=ignored_header(MESSAGES, body),
        pictures=prepared.pictures,
    )
    return await deliver(service, work, record)


def _translate(
    service: Service, kind: type[Fields], body: Mapping[str, Any]
) -> tuple[Fields, ChatRequest, Mapping[str, str]]:
    """The request, the chat request that means the same, and whose paths are whose."""
    request = read_fields(kind, body)
    check_model(request.model, service.names)
    check_fields(MESSAGES, body, service.settings)
    translated = chat_body(request)
    try:
        chat = parse_chat(translated.whole(), service.names, service.settings)
    except ApiError as failure:
        raise as_sent(failure, translated.paths) from None
    return request, chat, translated.paths
