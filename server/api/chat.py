"""POST /v1/chat/completions: from the body to a plain response or a stream.

Whatever fails before the first byte is a real HTTP error; later it is an error event, and the
stream ends without `[DONE]`. However a request ends, its choices are closed in the engine exactly
once, and one line is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer import Answer, Choice
from server.api.chat_reply import ChatReply
from server.api.incoming import read_json, until_disconnect
from server.api.prepare import Prepared
from server.api.responses import json_response
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.api.stream import EventStream
from server.api.submission import Submission
from server.api.validation import ignored_names, parse_chat
from server.errors import ApiError
from server.frontend.detokenizer import Detokenizer

DESCRIPTION = (
    "OpenAI's chat completion, with pictures as `data:` URLs. Fields that would change the answer "
    "and are not implemented are refused; others without effect are named in `x-ignored-params`."
)
DOCUMENTED_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
}


def chat_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/chat/completions",
        summary="Create a chat completion",
        description=DESCRIPTION,
        openapi_extra={"requestBody": DOCUMENTED_BODY},
    )
    async def chat_completions(request: Request) -> Response:
        record = ChatRecord(request.state.request_id)
        try:
            body = await read_json(request, service.settings.max_body_bytes)
            return await until_disconnect(request.receive, _respond(service, body, record))
        except ApiError as failure:
            record.failure = failure.code
            record.write(failure.status)
            raise
        except ClientDisconnect:
            record.write(499)
            raise

    return router


async def _respond(service: Service, body: Mapping[str, Any], record: ChatRecord) -> Response:
    request = parse_chat(body, service.names, service.settings)
    ready = service.client.admit(request.n or 1)
    prepared = await service.preparer.prepare(request, ready.max_model_len)
    answer = record.answer = _empty_answer(service, request, prepared)
    reply = ChatReply(request, answer, service.names[0], service.fingerprint)
    ignored = ignored_names(request)
    headers = {"x-ignored-params": ",".join(ignored)} if ignored else {}
    submission = service.client.submit(prepared.submits, prepared.pictures)
    with contextlib.ExitStack() as owner:
        owner.enter_context(submission)
        if not request.stream:
            async for deltas in submission:
                for index, delta in deltas:
                    answer.take(index, delta, submission.cancel)
            record.write(200)
            return json_response(reply.body(), headers=headers)
        keep_alive_s = service.settings.keep_alive_comment_s
        await _first_news(submission, keep_alive_s)
        owner.callback(record.write, 200)
        frames = reply.frames(submission, record)
        # From here on the stream closes the submission and writes the record.
        return EventStream(frames, owner.pop_all().close, keep_alive_s, headers)


async def _first_news(submission: Submission, patience_s: float) -> None:
    """Waits for the engine's first word, so that an engine which fails until then is a plain HTTP
    error: clients retry those by themselves. A silent stream has to begin at some time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(submission.begun(), patience_s)


def _empty_answer(service: Service, request: ChatRequest, prepared: Prepared) -> Answer:
    own_stop_ids = frozenset(request.stop_token_ids or [])
    choices = [
        Choice(Detokenizer(service.tokenizer, request.stop or []), own_stop_ids)
        for _ in prepared.submits
    ]
    return Answer(prepared.prompt, choices)
