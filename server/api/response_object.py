"""The response object and the items of its output, as OpenAI writes them.

An item has one id for its life: in every event of a stream and in the final object.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from server.api.answer import Answer
from server.api.blocks import Block, CallBlock, TextBlock
from server.api.engine_request import tier_of
from server.api.logprobs import LogprobFormat
from server.api.response_request import ResponseRequest
from server.errors import ApiError
from server.messages import SamplingParams


def fresh_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class OutputItem:
    """One block of the answer."""

    def __init__(self, block: Block, logprobs: LogprobFormat) -> None:
        self._block = block
        self._logprobs = logprobs
        self.id = fresh_id("fc" if isinstance(block, CallBlock) else "msg")

    def part(self) -> dict[str, Any]:
        """The content of a message."""
        assert isinstance(self._block, TextBlock)
        return {
            "type": "output_text",
            "text": self._block.text,
            "annotations": [],
            "logprobs": self._logprobs.content(self._block.scored),
        }

    def body(self, status: str) -> dict[str, Any]:
        """
        Args:
            status: `in_progress`, which has no content yet, `completed` or `incomplete`.
        """
        begun = status != "in_progress"
        if isinstance(self._block, CallBlock):
            return {
                "id": self.id,
                "type": "function_call",
                "status": status,
                "call_id": self._block.id,
                "name": self._block.name,
                "arguments": self._block.arguments if begun else "",
            }
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self.part()] if begun else [],
        }


class ResponseObject:
    """The object around the output.

    Args:
        body: as the client sent it; tools, formats and the like are returned as they came.
        sampling: what the engine was told.
        model: the name that answers carry.
        id: of the response.
    """

    def __init__(
        self,
        request: ResponseRequest,
        body: Mapping[str, Any],
        sampling: SamplingParams,
        model: str,
        id: str,
    ) -> None:
        self.id = id
        self._created_at = int(time.time())
        self._request = request
        self._body = body
        self._sampling = sampling
        self._model = model

    def in_progress(self) -> dict[str, Any]:
        return self._whole("in_progress", [], usage=None)

    def ended(self, answer: Answer, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
        status = "incomplete" if answer.choices[0].finish_reason == "length" else "completed"
        return self._whole(status, output, usage=usage_of(answer))

    def failed(self, failure: ApiError, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
        error = {"code": "server_error", "message": failure.message}
        return self._whole("failed", output, usage=None) | {"error": error}

    def _whole(
        self, status: str, output: Sequence[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        request, sent = self._request, self._body
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        reasoning = request.reasoning
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "background": False,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": self._model,
            "output": output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": {
                "effort": reasoning.effort if reasoning else None,
                "summary": reasoning.summary if reasoning else None,
            },
            "service_tier": tier_of(request),
            "store": request.store is not False,
            "temperature": self._sampling.temperature,
            "text": {"format": {"type": "text"}, **(sent.get("text") or {})},
            "tool_choice": sent.get("tool_choice") or "auto",
            "tools": sent.get("tools") or [],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": self._sampling.top_p,
            "truncation": request.truncation or "disabled",
            "usage": usage,
            "metadata": request.metadata or {},
        }


def usage_of(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": 0,
            "image_tokens": answer.image_tokens,
            "text_tokens": answer.prompt_tokens - answer.image_tokens,
        },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.output_tokens,
    }
