"""How an `Answer` to a chat request looks on the wire, whole or in chunks.

Key order, the role chunks of all choices before any content, and `usage` on every other chunk as
null are what clients in the field rely on.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from server.api.answer import Answer, Choice, News, ScoredToken
from server.api.chat_message import ChatMessage
from server.api.engine_request import tier_of
from server.api.logprobs import LogprobFormat
from server.api.schemas import ChatRequest
from server.api.stream import DONE, ChatChunks, error_event
from server.errors import ApiError


class ChatReply:
    """The reply to one request; see `delivery.Reply`.

    Args:
        messages: empty, one per choice.
        model: the name that answers carry.
        fingerprint: `system_fingerprint`.
    """

    def __init__(
        self,
        request: ChatRequest,
        answer: Answer,
        messages: list[ChatMessage],
        logprobs: LogprobFormat,
        *,
        model: str,
        fingerprint: str,
    ) -> None:
        self._request = request
        self._answer = answer
        self._messages = messages
        self._logprobs = logprobs
        self._model = model
        self._fingerprint = fingerprint
        self._id = f"chatcmpl-{request.request_id or uuid.uuid4().hex}"
        self._created = int(time.time())
        options = request.stream_options
        self._with_usage = bool(options and options.include_usage)
        self._usage_in_chunks = bool(
            self._with_usage and options and options.continuous_usage_stats
        )
        self._chunks = ChatChunks(
            self._head("chat.completion.chunk", self._service()), include_usage=self._with_usage
        )
        self._only_text = not (
            request.logprobs or request.return_token_ids or self._usage_in_chunks
        ) and all(message.is_text for message in messages)
        self._unsent: list[list[ScoredToken]] = [[] for _ in answer.choices]

    def body(self) -> dict[str, Any]:
        """The whole `chat.completion`."""
        choices = [self._choice(index, choice) for index, choice in enumerate(self._answer.choices)]
        rest = {"choices": choices, "usage": self._answer.usage(), **self._service()}
        body = self._head("chat.completion", rest)
        if self._request.prompt_logprobs is not None:
            body["prompt_logprobs"] = self._logprobs.prompt(
                self._answer.prompt.token_ids, self._answer.choices[0].prompt_logprobs
            )
        if self._request.return_token_ids:
            body["prompt_token_ids"] = self._answer.prompt.token_ids
        return body

    def begin(self) -> bytes:
        """The role chunks, and the echo where it was asked for."""
        first_ids = self._answer.prompt.token_ids if self._request.return_token_ids else None
        roles = [
            self._chunks.role(index, first_ids if index == 0 else None)
            for index in range(len(self._messages))
        ]
        echoes = [
            self._chunks.content(index, message.content)
            for index, message in enumerate(self._messages)
            if message.content
        ]
        return b"".join([*roles, *echoes])

    def news(self, news: News) -> bytes:
        message = self._messages[news.index]
        if self._only_text and not news.finished:
            message.push(news.text)
            return self._chunks.content(news.index, news.text) if news.text else b""
        choice = self._answer.choices[news.index]
        deltas = message.push(news.text)
        if news.finished:
            deltas += message.finish()
        self._unsent[news.index] += news.scored
        ids = news.token_ids if self._request.return_token_ids else None
        if ids and not deltas:
            deltas = [{"content": ""}]
        usage = self._answer.usage() if self._usage_in_chunks else None
        frames = b""
        for delta in deltas:
            frames += self._chunks.delta(
                news.index, delta, self._take_logprobs(news.index), ids, usage
            )
            ids = None
        if news.finished and choice.finish_reason is not None:
            frames += self._chunks.finish(
                news.index,
                message.finish_reason(choice.finish_reason),
                choice.stop_reason,
                self._take_logprobs(news.index),
                usage,
            )
        return frames

    def end(self) -> bytes:
        return (self._chunks.usage(self._answer.usage()) if self._with_usage else b"") + DONE

    def failure(self, failure: ApiError) -> bytes:
        return error_event(failure)

    def _head(self, kind: str, rest: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            **rest,
        }

    def _service(self) -> dict[str, Any]:
        service: dict[str, Any] = {
            "service_tier": tier_of(self._request),
            "system_fingerprint": self._fingerprint,
        }
        if self._request.metadata is not None:
            service["metadata"] = self._request.metadata
        return service

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = self._messages[index]
        message.push(choice.text)
        message.finish()
        scored = list(map(ScoredToken, choice.token_ids, choice.logprobs))
        value: dict[str, Any] = {
            "index": index,
            "message": message.body(),
            "logprobs": self._content_logprobs(scored) if self._request.logprobs else None,
            "finish_reason": message.finish_reason(choice.finish_reason or ""),
            "stop_reason": choice.stop_reason,
        }
        if self._request.return_token_ids:
            value["token_ids"] = choice.token_ids
        return value

    def _take_logprobs(self, index: int) -> dict[str, Any] | None:
        """Of the tokens whose text is in the next chunk."""
        scored, self._unsent[index] = self._unsent[index], []
        return self._content_logprobs(scored) if scored else None

    def _content_logprobs(self, scored: list[ScoredToken]) -> dict[str, Any]:
        return {"content": self._logprobs.content(scored), "refusal": None}
