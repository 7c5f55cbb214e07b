"""POST /v1/responses and /v1/responses/input_tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer import Answer
from server.api.choices import empty_choice
from server.api.delivery import Work, deliver, handle, ignored_header, read_counted
from server.api.fields import documented
from server.api.logprobs import LogprobFormat
from server.api.response_object import ResponseObject
from server.api.response_parameters import RESPONSES
from server.api.response_prompt import ResponsePrompt, history_of
from server.api.response_reply import ResponseReply
from server.api.response_request import ResponseRequest
from server.api.response_shapes import ResponseShape
from server.api.responses import json_response
from server.api.service import Service
from server.api.shapes import InputTokens, answers
from server.api.validation import read_request
from server.errors import ApiError


def add_create_routes(router: APIRouter, service: Service) -> None:
    @router.post(
        "/v1/responses",
        summary="Create a response",
        openapi_extra=documented(ResponseRequest),
        responses=answers(ResponseShape, streams=True),
    )
    async def create_response(request: Request) -> Response:
        return await handle(service, request, "response", partial(_respond, service))

    @router.post(
        "/v1/responses/input_tokens",
        summary="Count the tokens that a response would read",
        openapi_extra=documented(ResponseRequest),
        responses=answers(InputTokens),
    )
    async def count_input_tokens(request: Request) -> Response:
        body = await read_counted(service, request)
        wanted = _read(service, {"model": service.names[0], "input": [], **body})
        max_model_len = service.client.admit(0).max_model_len
        history = await history_of(service.responses, owner_of(request), wanted)
        prompt = ResponsePrompt(service, wanted, history)
        try:
            chat = await prompt.chat(max_model_len)
            count = len((await service.preparer.prompt(chat)).token_ids)
        except ApiError as failure:
            raise prompt.as_sent(failure) from None
        return json_response(
            {"object": "response.input_tokens", "input_tokens": count},
            headers=ignored_header(RESPONSES, body),
        )


def owner_of(request: Request) -> str:
    """Whose responses a request can see: those that were made with its API key."""
    name: str = request.state.key.name
    return name


def _read(service: Service, body: Mapping[str, Any]) -> ResponseRequest:
    return read_request(ResponseRequest, RESPONSES, body, service.names, service.settings)


async def _respond(service: Service, body: Mapping[str, Any], record: ChatRecord) -> Response:
    request = _read(service, body)
    history = await history_of(service.responses, record.key.name, request)
    prompt = ResponsePrompt(service, request, history)
    max_model_len = service.client.admit(1).max_model_len
    try:
        chat = await prompt.chat(max_model_len)
        prepared = await service.preparer.prepare(chat, max_model_len)
    except ApiError as failure:
        raise prompt.as_sent(failure) from None
    answer = Answer(prepared.prompt, [empty_choice(service, chat, goes_on=False)])

    def keep(response: Mapping[str, Any]) -> None:
        if request.store is not False:
            service.responses.put(record.key.name, response, prompt.input_items())

    reply = ResponseReply(
        ResponseObject(
            request,
            body,
            prepared.submits[0].sampling,
            service.names[0],
            service.responses.fresh_id(),
        ),
        answer,
        LogprobFormat(service.tokenizer, as_ids=bool(request.return_tokens_as_token_ids)),
        keep,
        with_tools=prepared.tools is not None,
    )
    work = Work(
        prepared.submits,
        answer,
        reply,
        stream=bool(request.stream),
        headers=ignored_header(RESPONSES, body, *request.idle),
        pictures=prepared.pictures,
    )
    return await deliver(service, work, record)
