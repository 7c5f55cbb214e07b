"""POST /v1/completions: continuations of texts or token ids, without template and pictures.

A text is the client's, so what looks like a control token in it is spelled out. Token ids are taken
as they are, control tokens and `<IMG_CONTEXT>` among them: those are embedded like any other token.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer_form import read_request_form
from server.api.choices import empty_choice
from server.api.completion_answer import CompletionAnswer
from server.api.completion_parameters import COMPLETIONS
from server.api.completion_reply import CompletionReply
from server.api.completion_request import CompletionRequest, TextPrompt, read_prompts
from server.api.context import bound_output, check_chars
from server.api.delivery import Work, deliver, handle, ignored_header
from server.api.engine_request import TokenLimits
from server.api.fields import documented
from server.api.paths import as_sent
from server.api.service import Service
from server.api.shapes import Completion, answers
from server.api.validation import read_request
from server.errors import ApiError, context_length_exceeded, invalid
from server.messages import Grammar, Submit


def completion_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/completions",
        summary="Continue texts or token ids",
        openapi_extra=documented(CompletionRequest),
        responses=answers(Completion, streams=True),
    )
    async def completions(request: Request) -> Response:
        return await handle(service, request, "completion", partial(_respond, service))

    return router


async def _respond(service: Service, body: Mapping[str, Any], record: ChatRecord) -> Response:
    request = read_request(CompletionRequest, COMPLETIONS, body, service.names, service.settings)
    prompts = read_prompts(request.prompt)
    choices = len(prompts) * (request.n or 1)
    _check_count(choices, service.settings.max_waiting_requests)
    max_model_len = service.client.admit(choices).max_model_len
    try:
        limits = await service.preparer.texts.token_limits(request, len(prompts))
        grammar = await _grammar(service, request)
    except ApiError as failure:
        raise as_sent(failure, COMPLETIONS.canonical(body)[1]) from None
    bound_output(service.settings, max(1, request.tokens_max), max_model_len, choices, "max_tokens")
    prompt_ids = [await _token_ids(service, prompt, max_model_len) for prompt in prompts]
    submits = [
        submit
        for ids in prompt_ids
        for submit in _submits(service, request, limits, ids, max_model_len, grammar=grammar)
    ]
    answer = CompletionAnswer(
        prompt_ids,
        [empty_choice(service, request, goes_on=True) for _ in submits],
        silent=request.tokens_max == 0,
    )
    reply = CompletionReply(
        request,
        answer,
        service.tokenizer,
        model=service.names[0],
        fingerprint=service.fingerprint,
    )
    work = Work(
        submits,
        answer,
        reply,
        stream=bool(request.stream),
        headers=ignored_header(COMPLETIONS, body),
    )
    return await deliver(service, work, record)


async def _grammar(service: Service, request: CompletionRequest) -> Grammar | None:
    if request.structured_outputs is None and request.response_format is None:
        return None
    return await service.preparer.form_grammar(lambda: read_request_form(request))


def _check_count(choices: int, limit: int) -> None:
    if choices > limit:
        raise invalid(
            f"Invalid 'prompt': this server holds {limit} choices at once, but got {choices}. "
            "Send fewer prompts.",
            param="prompt",
            code="array_above_max_length",
        )


async def _token_ids(service: Service, prompt: TextPrompt, max_model_len: int) -> list[int]:
    texts, content = service.preparer.texts, prompt.content
    if isinstance(content, str):
        texts.check_chars(content, max_model_len)
        check_chars(len(content), service.settings.max_text_chars, prompt.param)
        return await texts.encode(content, prompt.param)
    texts.check_ids(content, prompt.param)
    return content


def _submits(
    service: Service,
    request: CompletionRequest,
    limits: TokenLimits,
    ids: list[int],
    max_model_len: int,
    *,
    grammar: Grammar | None,
) -> list[Submit]:
    # The engine draws one token at least.
    max_tokens = max(1, request.tokens_max)
    if len(ids) + max_tokens > max_model_len:
        raise context_length_exceeded(
            max_model_len,
            f"However, you requested {len(ids) + max_tokens} tokens ({len(ids)} in the prompt, "
            f"{max_tokens} in the completion). Please reduce the length of either.",
            param="prompt",
        )
    submits = service.preparer.texts.submits(request, limits, ids, max_tokens, grammar)
    if not request.echo or request.logprobs is None:
        return submits
    return [msgspec.structs.replace(s, prompt_logprobs=request.logprobs) for s in submits]
