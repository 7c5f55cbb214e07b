"""The answer to a chat request while it grows: one text per choice, and what it cost.

Plain responses and streams read the same `Answer`, so they cannot differ in text, in reasons or in
usage. The token that ended a choice counts and is listed, but is never part of the text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.frontend.detokenizer import Detokenizer
from server.frontend.prompt import Prompt
from server.messages import Delta, FinishReason


@dataclass(frozen=True, slots=True)
class News:
    """What a delta added to a choice."""

    index: int
    text: str
    token_ids: list[int]
    finished: bool


class Choice:
    """One choice.

    Args:
        own_stop_ids: stop tokens that the request named; ending by one of them is reported.
    """

    def __init__(self, detokenizer: Detokenizer, own_stop_ids: frozenset[int]) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        """The stop string or the stop token of the request that ended the choice."""
        self._detokenizer = detokenizer
        self._own_stop_ids = own_stop_ids

    def push(self, delta: Delta) -> str:
        """Takes a delta and returns the text that is certain now."""
        self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        self.token_ids += delta.token_ids
        ended_by_token = delta.finish is FinishReason.STOP
        text = self._detokenizer.push(delta.token_ids[:-1] if ended_by_token else delta.token_ids)
        if delta.finish is not None:
            text += self._detokenizer.finish()
            self.finish_reason = delta.finish.value
            last = self.token_ids[-1] if self.token_ids else None
            if ended_by_token and last in self._own_stop_ids:
                self.stop_reason = last
        if self._detokenizer.stopped is not None:
            self.finish_reason = FinishReason.STOP.value
            self.stop_reason = self._detokenizer.stopped
        self.text += text
        return text


class Answer:
    """All choices of a request, in order."""

    def __init__(self, prompt: Prompt, choices: Sequence[Choice]) -> None:
        self.prompt = prompt
        self.choices = choices
        self.first_token_at: float | None = None
        """Monotonic clock, in seconds."""

    def take(self, index: int, delta: Delta, cancel: Callable[[int], None]) -> News | None:
        """Takes what has arrived for a choice; None when that has ended before.

        Args:
            cancel: ends a choice in the engine; called when one meets a stop string.
        """
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        choice = self.choices[index]
        if choice.finish_reason is not None:
            return None  # computed before the engine heard that this choice had met a stop string
        text = choice.push(delta)
        finished = choice.finish_reason is not None
        if finished and delta.finish is None:
            cancel(index)
        return News(index, text, delta.token_ids, finished)

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.token_ids)

    @property
    def image_tokens(self) -> int:
        return sum(length for _, length in self.prompt.images)

    @property
    def cached_tokens(self) -> int:
        """Of the first choice: the others share its prompt, not somebody else's."""
        return self.choices[0].cached_tokens

    @property
    def output_tokens(self) -> int:
        return sum(len(choice.token_ids) for choice in self.choices)

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "image_tokens": self.image_tokens,
                "text_tokens": self.prompt_tokens - self.image_tokens,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
