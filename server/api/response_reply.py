"""How an answer looks as a response: one object, or the events of its making.

Every event has its number, counted from 0. Between `response.created` and the last event, which
carries the final object, each item is added, gets its content and is done before the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from server.api.answer import Answer, News
from server.api.blocks import Begin, Block, Blocks, CallBlock, Change, End, Piece
from server.api.logprobs import LogprobFormat
from server.api.response_object import OutputItem, ResponseObject
from server.errors import ApiError


class ResponseReply:
    """The reply to one request.

    Args:
        keep: is given the final object once, when the answer has ended.
        with_tools: the answer may hold calls.
    """

    def __init__(
        self,
        response: ResponseObject,
        answer: Answer,
        logprobs: LogprobFormat,
        keep: Callable[[dict[str, Any]], None],
        *,
        with_tools: bool,
    ) -> None:
        self._response = response
        self._answer = answer
        self._logprobs = logprobs
        self._keep = keep
        self._blocks = Blocks(with_tools=with_tools, id_prefix="call")
        self._items: list[OutputItem] = []
        self._numbers = itertools.count()

    def body(self) -> dict[str, Any]:
        choice = self._answer.choices[0]
        self._blocks.push(choice.text, choice.all_scored())
        self._blocks.finish()
        self._items = [OutputItem(block, self._logprobs) for block in self._blocks.all]
        return self._ended()

    def begin(self) -> bytes:
        response = self._response.in_progress()
        return self._event("created", response=response) + self._event(
            "in_progress", response=response
        )

    def news(self, news: News) -> bytes:
        changes = self._blocks.push(news.text, news.scored)
        if news.finished:
            changes += self._blocks.finish()
        return b"".join(map(self._frames, changes))

    def end(self) -> bytes:
        response = self._ended()
        return self._event(response["status"], response=response)

    def failure(self, failure: ApiError) -> bytes:
        output = self._output("incomplete")
        return self._event("failed", response=self._response.failed(failure, output))

    def _ended(self) -> dict[str, Any]:
        output = self._output("incomplete" if self._is_cut else "completed")
        response = self._response.ended(self._answer, output)
        self._keep(response)
        return response

    def _output(self, last_status: str) -> list[dict[str, Any]]:
        """All items; only the last one can have been cut."""
        last = len(self._items) - 1
        return [
            item.body(last_status if index == last else "completed")
            for index, item in enumerate(self._items)
        ]

    @property
    def _is_cut(self) -> bool:
        return self._answer.choices[0].finish_reason == "length"

    def _frames(self, change: Change) -> bytes:
        if isinstance(change, Begin):
            return self._begin_item(change.block)
        return self._piece(change) if isinstance(change, Piece) else self._end_item(change)

    def _begin_item(self, block: Block) -> bytes:
        item = OutputItem(block, self._logprobs)
        self._items.append(item)
        frames = self._output_event("output_item.added", item.body("in_progress"))
        if isinstance(block, CallBlock):
            return frames
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return frames + self._item_event("content_part.added", content_index=0, part=part)

    def _piece(self, piece: Piece) -> bytes:
        if isinstance(piece.block, CallBlock):
            return self._item_event("function_call_arguments.delta", delta=piece.text)
        return self._item_event(
            "output_text.delta",
            content_index=0,
            delta=piece.text,
            logprobs=self._logprobs.content(piece.scored),
        )

    def _end_item(self, end: End) -> bytes:
        item, block = self._items[-1], end.block
        if isinstance(block, CallBlock):
            frames = self._item_event(
                "function_call_arguments.done", name=block.name, arguments=block.arguments
            )
        else:
            part = item.part()
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            frames = self._item_event("output_text.done", content_index=0, **said)
            frames += self._item_event("content_part.done", content_index=0, part=part)
        status = "incomplete" if end.last and self._is_cut else "completed"
        return frames + self._output_event("output_item.done", item.body(status))

    def _output_event(self, name: str, item: Mapping[str, Any]) -> bytes:
        return self._event(name, output_index=len(self._items) - 1, item=item)

    def _item_event(self, name: str, /, **fields: Any) -> bytes:
        place = {"item_id": self._items[-1].id, "output_index": len(self._items) - 1}
        return self._event(name, **place, **fields)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        kind = f"response.{name}"
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return f"event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
