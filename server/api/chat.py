"""POST /v1/chat/completions, from the body to a prepared request and an empty reply, and the count
of what it would read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer import Answer
from server.api.chat_message import ChatMessage
from server.api.chat_parameters import CHAT
from server.api.chat_reply import ChatReply
from server.api.choices import empty_choice
from server.api.delivery import Work, deliver, handle, ignored_header, read_counted
from server.api.fields import documented
from server.api.logprobs import LogprobFormat
from server.api.paths import as_sent
from server.api.prepare import Prepared
from server.api.responses import json_response
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.api.shapes import ChatCompletion, InputTokens, answers
from server.api.validation import parse_chat
from server.errors import ApiError

DESCRIPTION = (
    "OpenAI's chat completion, with pictures as `data:` URLs. Every field is honoured, named in "
    "`x-ignored-params`, or refused; `GET /v1/capabilities` says which."
)


def chat_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/chat/completions",
        summary="Create a chat completion",
        description=DESCRIPTION,
        openapi_extra=documented(ChatRequest),
        responses=answers(ChatCompletion, streams=True),
    )
    async def chat_completions(request: Request) -> Response:
        return await handle(service, request, "chat", partial(_respond, service))

    @router.post(
        "/v1/chat/completions/input_tokens",
        summary="Count the tokens that a chat completion would read",
        openapi_extra=documented(ChatRequest),
        responses=answers(InputTokens),
    )
    async def count_input_tokens(request: Request) -> Response:
        body = await read_counted(service, request)
        chat = parse_chat({"model": service.names[0], **body}, service.names, service.settings)
        service.client.admit(0)
        try:
            count = len((await service.preparer.prompt(chat)).token_ids)
        except ApiError as failure:
            raise as_sent(failure, CHAT.canonical(body)[1]) from None
        return json_response(
            {"object": "response.input_tokens", "input_tokens": count},
            headers=ignored_header(CHAT, body),
        )

    return router


async def _respond(service: Service, body: Mapping[str, Any], record: ChatRecord) -> Response:
    request = parse_chat(body, service.names, service.settings)
    ready = service.client.admit(request.n or 1)
    try:
        prepared = await service.preparer.prepare(request, ready.max_model_len)
    except ApiError as failure:
        raise as_sent(failure, CHAT.canonical(body)[1]) from None
    choices = [empty_choice(service, request, goes_on=request.continues) for _ in prepared.submits]
    answer = Answer(prepared.prompt, choices)
    reply = ChatReply(
        request,
        answer,
        _messages(request, prepared),
        LogprobFormat(service.tokenizer, as_ids=bool(request.return_tokens_as_token_ids)),
        model=service.names[0],
        fingerprint=service.fingerprint,
    )
    work = Work(
        prepared.submits,
        answer,
        reply,
        stream=bool(request.stream),
        headers=ignored_header(CHAT, body),
        pictures=prepared.pictures,
    )
    return await deliver(service, work, record)


def _messages(request: ChatRequest, prepared: Prepared) -> list[ChatMessage]:
    echo = _last_text(request) if request.echo else ""
    return [ChatMessage(prepared.tools, echo) for _ in prepared.submits]


def _last_text(request: ChatRequest) -> str:
    """What `echo` repeats: the last message's text where it is the assistant's."""
    last = request.messages[-1]
    if last.role != "assistant":
        return ""
    return "\n".join(part.text for part in last.content or () if part.text)
