"""How an `Answer` to a chat request looks on the wire, whole or in chunks.

Key order, the role chunks of all choices before any content, and `usage` on every other chunk as
null are what clients in the field rely on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from server.api.access import ChatRecord
from server.api.answer import Answer, Choice, News
from server.api.responses import internal_error
from server.api.schemas import ChatRequest
from server.api.stream import DONE, ChatChunks, error_event
from server.api.submission import Submission
from server.errors import ApiError

log = logging.getLogger(__name__)

SERVICE_TIER = "default"


class ChatReply:
    """The reply to one request.

    Args:
        model: the name that answers carry.
        fingerprint: `system_fingerprint`.
    """

    def __init__(self, request: ChatRequest, answer: Answer, model: str, fingerprint: str) -> None:
        self._answer = answer
        self._model = model
        self._fingerprint = fingerprint
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._with_ids = bool(request.return_token_ids)
        options = request.stream_options
        self._with_usage = bool(options and options.include_usage)
        self._usage_in_chunks = bool(
            self._with_usage and options and options.continuous_usage_stats
        )

    def body(self) -> dict[str, Any]:
        """The whole `chat.completion`."""
        body: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                self._choice(index, choice) for index, choice in enumerate(self._answer.choices)
            ],
            "usage": self._answer.usage(),
            "service_tier": SERVICE_TIER,
            "system_fingerprint": self._fingerprint,
        }
        if self._with_ids:
            body["prompt_token_ids"] = self._answer.prompt.token_ids
        return body

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.text,
            "refusal": None,
            "annotations": [],
        }
        value: dict[str, Any] = {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._with_ids:
            value["token_ids"] = choice.token_ids
        return value

    async def frames(self, submission: Submission, record: ChatRecord) -> AsyncIterator[bytes]:
        """The event stream, to its end or to an error event."""
        chunks = self._chunks()
        yield self._role_frames(chunks)
        try:
            async for deltas in submission:
                frames = b""
                for index, delta in deltas:
                    if news := self._answer.take(index, delta, submission.cancel):
                        frames += self._frames_of(news, chunks)
                if frames:
                    yield frames
        except ApiError as failure:
            record.failure = failure.code
            yield error_event(failure)
            return
        except Exception:
            log.exception("request %s failed while it was streamed", record.request_id)
            record.failure = internal_error().code
            yield error_event(internal_error())
            return
        yield (chunks.usage(self._answer.usage()) if self._with_usage else b"") + DONE

    def _chunks(self) -> ChatChunks:
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "service_tier": SERVICE_TIER,
            "system_fingerprint": self._fingerprint,
        }
        return ChatChunks(head, include_usage=self._with_usage)

    def _role_frames(self, chunks: ChatChunks) -> bytes:
        first_ids = self._answer.prompt.token_ids if self._with_ids else None
        return b"".join(
            chunks.role(index, first_ids if index == 0 else None)
            for index in range(len(self._answer.choices))
        )

    def _frames_of(self, news: News, chunks: ChatChunks) -> bytes:
        frames = b""
        usage = self._answer.usage() if self._usage_in_chunks else None
        if news.text or (self._with_ids and news.token_ids):
            ids = news.token_ids if self._with_ids else None
            frames = chunks.content(news.index, news.text, ids, usage)
        choice = self._answer.choices[news.index]
        if news.finished and choice.finish_reason is not None:
            frames += chunks.finish(news.index, choice.finish_reason, choice.stop_reason, usage)
        return frames
