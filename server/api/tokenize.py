"""POST /tokenize and /detokenize, with vLLM's bodies: what a prompt or a conversation costs.

Nothing here reaches the engine. A `prompt` is text of the caller, so what looks like a control
token is spelled out, as in every text that the model gets; `messages` are the whole chat prompt,
template and pictures included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.delivery import ignored_header, read_counted
from server.api.fields import check_model, documented, read_fields
from server.api.parameters import Table
from server.api.responses import json_response
from server.api.service import Service
from server.api.shapes import Detokenized, Tokens, answers
from server.api.tokenize_parameters import DETOKENIZE, TOKENIZE
from server.api.tokenize_request import DetokenizeRequest, TokenizeRequest, TokensRequest
from server.api.validation import check_fields, parse_chat
from server.errors import invalid
from server.frontend.detokenizer import Detokenizer

OWN_FIELDS = ("prompt", "return_token_strs", "add_special_tokens")
"""What `/tokenize` has beside the fields of a chat request."""

Fields = TypeVar("Fields", bound=TokensRequest)


def tokenize_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["Tokens"])

    @router.post(
        "/tokenize",
        summary="The token ids of a text or a conversation (vLLM)",
        openapi_extra=documented(TokenizeRequest),
        responses=answers(Tokens),
    )
    async def tokenize(request: Request) -> Response:
        body = await read_counted(service, request)
        fields = _read(service, TokenizeRequest, TOKENIZE, body)
        max_model_len = service.client.admit(0).max_model_len
        ids = await _tokens(service, fields, body)
        name = service.tokenizer.token_name
        return json_response(
            {
                "count": len(ids),
                "max_model_len": max_model_len,
                "tokens": ids,
                "token_strs": [name(id) for id in ids] if fields.return_token_strs else None,
            },
            headers=ignored_header(TOKENIZE, body),
        )

    @router.post(
        "/detokenize",
        summary="The text of token ids, control tokens included (vLLM)",
        openapi_extra=documented(DetokenizeRequest),
        responses=answers(Detokenized),
    )
    async def detokenize(request: Request) -> Response:
        body = await read_counted(service, request)
        fields = _read(service, DetokenizeRequest, DETOKENIZE, body)
        service.preparer.texts.check_ids(fields.tokens, "tokens")
        detokenizer = Detokenizer(
            service.tokenizer,
            skip_special_tokens=False,
            drop_leading_space=service.tokenizer.puts_space_in_front,
        )
        text = detokenizer.push(fields.tokens) + detokenizer.finish()
        return json_response({"prompt": text}, headers=ignored_header(DETOKENIZE, body))

    return router


def _read(service: Service, kind: type[Fields], table: Table, body: Mapping[str, Any]) -> Fields:
    fields = read_fields(kind, body)
    check_model(fields.model, service.names)
    check_fields(table, body, service.settings)
    return fields


async def _tokens(service: Service, fields: TokenizeRequest, body: Mapping[str, Any]) -> list[int]:
    if (fields.prompt is None) == (fields.messages is None):
        raise invalid(
            "Send either 'prompt' or 'messages'.", param="prompt", code="missing_required_parameter"
        )
    if fields.prompt is not None:
        return await service.preparer.texts.encode(fields.prompt, "prompt")
    rest = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    request = parse_chat({**rest, "model": service.names[0]}, service.names, service.settings)
    return (await service.preparer.prompt(request)).token_ids
