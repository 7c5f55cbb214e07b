"""How a `CompletionAnswer` looks on the wire, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from server.api.answer import News, ScoredToken
from server.api.completion_answer import CompletionAnswer
from server.api.completion_logprobs import CompletionLogprobs
from server.api.completion_request import CompletionRequest
from server.api.engine_request import tier_of
from server.api.stream import DONE, error_event
from server.errors import ApiError
from server.frontend.detokenizer import Detokenizer
from server.frontend.tokenizer import Tokenizer


class CompletionReply:
    """The reply to one request.

    Args:
        model: the name that answers carry.
        fingerprint: `system_fingerprint`.
    """

    def __init__(
        self,
        request: CompletionRequest,
        answer: CompletionAnswer,
        tokenizer: Tokenizer,
        *,
        model: str,
        fingerprint: str,
    ) -> None:
        self._request = request
        self._answer = answer
        self._tokenizer = tokenizer
        self._head = {
            "id": f"cmpl-{request.request_id or uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._tail: dict[str, Any] = {
            "service_tier": tier_of(request),
            "system_fingerprint": fingerprint,
        }
        if request.metadata is not None:
            self._tail["metadata"] = request.metadata
        options = request.stream_options
        self._with_usage = bool(options and options.include_usage)
        self._usage_in_chunks = bool(
            self._with_usage and options and options.continuous_usage_stats
        )
        self._logprobs = [self._empty_logprobs() for _ in answer.choices]
        self._begun = [False for _ in answer.choices]

    def body(self) -> dict[str, Any]:
        """The whole `text_completion`."""
        choices = [self._whole(index) for index in range(len(self._answer.choices))]
        return {**self._head, "choices": choices, "usage": self._answer.usage(), **self._tail}

    def begin(self) -> bytes:
        return b""

    def news(self, news: News) -> bytes:
        if not (news.text or news.token_ids or news.finished):
            return b""
        text, logprobs = news.text, self._logprobs[news.index]
        begins = not self._begun[news.index]
        if begins:
            self._begun[news.index] = True
            text = self._begin(news.index) + text
        if not (text or news.scored or news.finished or self._request.return_token_ids):
            return b""  # half a character
        logprobs.take(news.scored)
        value = self._choice(news.index, text, logprobs.news())
        if self._request.return_token_ids:
            value["prompt_token_ids"] = self._answer.prompt_of(news.index) if begins else None
            value["token_ids"] = news.token_ids
        return self._chunk([value], self._answer.usage() if self._usage_in_chunks else None)

    def end(self) -> bytes:
        return (self._chunk([], self._answer.usage()) if self._with_usage else b"") + DONE

    def failure(self, failure: ApiError) -> bytes:
        return error_event(failure)

    def _whole(self, index: int) -> dict[str, Any]:
        choice, logprobs = self._answer.choices[index], self._logprobs[index]
        text = self._begin(index) + choice.text
        scored = map(ScoredToken, choice.token_ids, choice.logprobs)
        logprobs.take(scored)
        value = self._choice(index, text, logprobs.news())
        if self._request.return_token_ids:
            value["prompt_token_ids"] = self._answer.prompt_of(index)
            value["token_ids"] = choice.token_ids
        return value

    def _begin(self, index: int) -> str:
        """Text in front of what is generated: the prompt, where it was asked for."""
        if not self._request.echo:
            return ""
        prompt = self._answer.prompt_of(index)
        if self._request.logprobs is not None:
            prompt_logprobs = self._answer.choices[index].prompt_logprobs
            self._logprobs[index].take_prompt(prompt, prompt_logprobs)
        detokenizer = self._detokenizer()
        return detokenizer.push(prompt) + detokenizer.finish()

    def _choice(self, index: int, text: str, logprobs: Mapping[str, Any]) -> dict[str, Any]:
        choice = self._answer.choices[index]
        return {
            "index": index,
            "text": text,
            "logprobs": None if self._request.logprobs is None else logprobs,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }

    def _chunk(self, choices: list[Any], usage: Mapping[str, Any] | None) -> bytes:
        chunk = {**self._head, "choices": choices, **self._tail}
        if self._with_usage:
            chunk["usage"] = usage
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _empty_logprobs(self) -> CompletionLogprobs:
        as_ids = bool(self._request.return_tokens_as_token_ids)
        return CompletionLogprobs(self._tokenizer, self._detokenizer(), as_ids=as_ids)

    def _detokenizer(self) -> Detokenizer:
        """For a choice from where its text begins. A completion goes on with the client's text, so
        its first space is part of it."""
        return Detokenizer(
            self._tokenizer,
            skip_special_tokens=self._request.skip_special_tokens is not False,
            drop_leading_space=bool(self._request.echo) and self._tokenizer.puts_space_in_front,
        )
