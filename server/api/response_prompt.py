"""From a request for a response to the chat request that it means, former responses included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.api.kept_responses import KeptResponses
from server.api.paths import as_sent
from server.api.response_items import chat_body
from server.api.response_object import fresh_id
from server.api.response_request import InputItem, ResponseRequest
from server.api.schemas import ChatRequest
from server.api.service import Service
from server.api.validation import parse_chat
from server.errors import ApiError, invalid

KEPT = {
    "message": ("msg", ("role", "content")),
    "function_call": ("fc", ("call_id", "name", "arguments")),
    "function_call_output": ("fco", ("call_id", "output")),
}
"""Items that are stored, by type: what their ids begin with, and their fields."""

PART_FIELDS = ("type", "text", "refusal", "image_url", "detail")


class ResponsePrompt:
    """The conversation that a response is an answer to.

    Args:
        request: its own items, and the settings of the answer.
        history: items of the conversation before it, as they were stored.
    """

    def __init__(
        self, service: Service, request: ResponseRequest, history: Sequence[bytes]
    ) -> None:
        self._service = service
        self._request = request
        self.history = history
        earlier = map(InputItem.model_validate_json, history)
        own = ((f"input[{index}]", item) for index, item in enumerate(request.input))
        self._items = [*(("previous_response_id", item) for item in earlier), *own]
        self._paths: dict[str, str] = {}

    async def chat(self, max_model_len: int) -> ChatRequest:
        """The chat request, without its oldest items where `truncation` asks for that.

        Raises:
            ApiError: 400; its path may be one of the chat request, see `as_sent`.
        """
        chat = self._parse(0)
        if self._request.truncation != "auto":
            return chat
        room = max_model_len - (self._request.max_output_tokens or 1)
        if await self._service.preparer.fits(chat, room):
            return chat
        # The fewest items to leave out: with more of them left out the prompt is never longer.
        too_few, enough = 0, len(self._items) - 1
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if await self._service.preparer.fits(self._parse(middle), room):
                enough = middle
            else:
                too_few = middle
        return self._parse(enough)

    def as_sent(self, failure: ApiError) -> ApiError:
        """The failure with a path of the client's own request."""
        return as_sent(failure, self._paths)

    def input_items(self) -> list[bytes]:
        """All items, to be stored."""
        own = (item for item in self._request.input if item.type in KEPT)
        return [*self.history, *(msgspec.json.encode(_listed(item)) for item in own)]

    def _parse(self, left_out: int) -> ChatRequest:
        body = chat_body(self._request, self._items[left_out:])
        self._paths = body.paths
        return parse_chat(body.whole(), self._service.names, self._service.settings)


async def history_of(
    kept: KeptResponses, owner: str, request: ResponseRequest
) -> tuple[bytes, ...]:
    """Items of the conversation that the request goes on with.

    Args:
        owner: name of the API key that asks; responses of others are not there.

    Raises:
        ApiError: 400 `previous_response_not_found`; 503, see `KeptResponses.get`.
    """
    if request.previous_response_id is None:
        return ()
    stored = await kept.get(owner, request.previous_response_id)
    if stored is None:
        raise invalid(
            "The previous response is not stored here: it was deleted, made with 'store': false, "
            "or displaced by newer ones. Send the whole conversation instead.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return stored.conversation


def _listed(item: InputItem) -> dict[str, Any]:
    """An item as it is listed: with an id, and content in parts. What nobody here has checked is
    not kept: it would have to be read again."""
    prefix, fields = KEPT[item.type]
    known = item.model_dump(include={"id", *fields}, exclude_none=True)
    body = {"id": fresh_id(prefix), "type": item.type, "status": "completed", **known}
    if isinstance(item.content, str) and "content" in body:
        kind = "output_text" if item.role == "assistant" else "input_text"
        body["content"] = [{"type": kind, "text": item.content}]
    for name in ("content", "output"):
        if isinstance(body.get(name), list):
            body[name] = [_part(part) for part in body[name]]
    return body


def _part(sent: Mapping[str, Any]) -> dict[str, Any]:
    part = {name: sent[name] for name in PART_FIELDS if isinstance(sent.get(name), str)}
    if isinstance(sent.get("image_url"), dict):
        part["image_url"] = sent["image_url"]["url"]
    return part
