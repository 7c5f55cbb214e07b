"""The routes under `/v1/responses`: making responses, and asking for those that were kept."""

from __future__ import annotations

from typing import Literal

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.api.explain import ECHO_CHARS_MAX
from server.api.kept_responses import KeptResponses
from server.api.response_create import add_create_routes, owner_of
from server.api.response_shapes import ItemList, ResponseDeleted, ResponseShape
from server.api.response_store import StoredResponse
from server.api.responses import json_response
from server.api.service import Service
from server.api.shapes import answers
from server.errors import ApiError, invalid

PAGE_DEFAULT = 20
PAGE_MAX = 100
PAGING = {
    "parameters": [
        {"name": "after", "in": "query", "schema": {"type": "string"}},
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        },
        {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
    ]
}


def response_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])
    add_create_routes(router, service)
    _add_stored_routes(router, service.responses)
    return router


def _add_stored_routes(router: APIRouter, kept: KeptResponses) -> None:
    @router.get("/v1/responses/{id}", summary="A stored response", responses=answers(ResponseShape))
    async def get_response(request: Request, id: str) -> Response:
        if request.query_params.get("stream") == "true":
            raise ApiError(
                400,
                "unsupported_value",
                "Unsupported value: only responses made in the background can be streamed again.",
                param="stream",
            )
        stored = await _find(kept, request, id)
        return Response(stored.response, media_type="application/json")

    @router.delete(
        "/v1/responses/{id}", summary="Forget a response", responses=answers(ResponseDeleted)
    )
    async def delete_response(request: Request, id: str) -> Response:
        if not await kept.delete(owner_of(request), id):
            raise _not_found(id)
        return json_response({"id": id, "object": "response", "deleted": True})

    @router.post(
        "/v1/responses/{id}/cancel",
        summary="Refused: nothing runs in the background",
        responses=answers(ResponseShape),
    )
    async def cancel_response(request: Request, id: str) -> Response:
        await _find(kept, request, id)
        raise invalid(
            "Only responses made in the background can be cancelled. Close the connection of one "
            "that is being made.",
            param=None,
        )

    @router.get(
        "/v1/responses/{id}/input_items",
        summary="What a response is an answer to",
        responses=answers(ItemList),
        openapi_extra=PAGING,
    )
    async def list_input_items(request: Request, id: str) -> Response:
        stored = await _find(kept, request, id)
        items = [msgspec.json.decode(item) for item in stored.input_items]
        query = request.query_params
        if _order(query.get("order")) == "desc":
            items.reverse()
        ids = [item["id"] for item in items]
        after = query.get("after")
        if after is not None and after not in ids:
            raise invalid("Invalid 'after': there is no such item.", param="after")
        begin = 0 if after is None else ids.index(after) + 1
        limit = _limit(query.get("limit"))
        page = items[begin : begin + limit]
        return json_response(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": begin + limit < len(items),
            }
        )


async def _find(kept: KeptResponses, request: Request, id: str) -> StoredResponse:
    stored = await kept.get(owner_of(request), id)
    if stored is None:
        raise _not_found(id)
    return stored


def _not_found(id: str) -> ApiError:
    return ApiError(
        404, "response_not_found", f"Response with id '{id[:ECHO_CHARS_MAX]}' not found."
    )


def _order(text: str | None) -> Literal["asc", "desc"]:
    if text not in (None, "asc", "desc"):
        raise invalid("Invalid value for 'order': expected 'asc' or 'desc'.", param="order")
    return "asc" if text == "asc" else "desc"


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_DEFAULT
    if not (len(text) < 10 and text.isdecimal() and 1 <= int(text) <= PAGE_MAX):
        raise invalid(
            f"Invalid value for 'limit': expected a number from 1 to {PAGE_MAX}.", param="limit"
        )
    return int(text)
