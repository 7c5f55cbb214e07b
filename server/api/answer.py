"""The answer to a chat request while it grows: one text per choice, and what it cost.

Plain responses and streams read the same `Answer`, so they cannot differ in text, in reasons or in
usage. The token that ended a choice counts and is listed, but is no part of the text unless the
request wants it there. Every token's log probability is news exactly once, together with the text
that the token belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from server.frontend.detokenizer import Detokenizer
from server.frontend.prompt import Prompt
from server.messages import Delta, FinishReason, TokenLogprob


@dataclass(frozen=True, slots=True)
class ScoredToken:
    token_id: int
    logprob: TokenLogprob
    at: int = 0
    """Where in the text it begins, in characters; one that adds none belongs to the last before."""


class News(msgspec.Struct, frozen=True):
    """What a delta added to a choice. A struct, because one is made for each token."""

    index: int
    text: str
    token_ids: list[int]
    finished: bool
    scored: Sequence[ScoredToken]
    """Tokens of this text and of the text before it that has just become certain, where their log
    probabilities were asked for."""


class Choice:
    """One choice.

    Args:
        own_stop_ids: stop tokens that the request named; ending by one of them is reported.
        end_ids: the other tokens that end a choice. A last token that is neither is text: it
            completed the grammar of the answer.
        keep_end: the token that ends the choice is part of its text.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        own_stop_ids: frozenset[int],
        *,
        end_ids: Collection[int] = (),
        keep_end: bool = False,
    ) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        """One for each of `token_ids`, where they were asked for."""
        self.prompt_logprobs: list[TokenLogprob] = []
        """For the prompt's tokens from the second on, where they were asked for."""
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        """The stop string or the stop token of the request that ended the choice."""
        self._detokenizer = detokenizer
        self._own_stop_ids = own_stop_ids
        self._all_stop_ids = own_stop_ids.union(end_ids)
        self._keep_end = keep_end
        self._pieces: list[str] = []
        self._ends: list[int] = []
        """Where in the text each scored token ends, in characters."""
        self._reported = 0
        """Scored tokens that have been news."""

    @property
    def text(self) -> str:
        """What is certain so far."""
        return "".join(self._pieces)

    def push(self, delta: Delta) -> str:
        """Takes a delta and returns the text that is certain now."""
        self.cached_tokens = self.cached_tokens or delta.cached_tokens
        self.token_ids += delta.token_ids
        if delta.prompt_logprobs is not None and not self.prompt_logprobs:
            self.prompt_logprobs = delta.prompt_logprobs
        if delta.finish is None and delta.logprobs is None:
            text = self._detokenizer.push(delta.token_ids)
        else:
            text = self._push_scored_or_last(delta)
        if self._detokenizer.stopped is not None:
            self.finish_reason = FinishReason.STOP.value
            self.stop_reason = self._detokenizer.stopped
        self._pieces.append(text)
        return text

    def _push_scored_or_last(self, delta: Delta) -> str:
        self.logprobs += delta.logprobs or ()
        last = self.token_ids[-1] if self.token_ids else None
        ended_by_token = delta.finish is FinishReason.STOP and last in self._all_stop_ids
        text = self._decode(delta, without_last=ended_by_token and not self._keep_end)
        if delta.finish is not None:
            text += self._detokenizer.finish()
            self.finish_reason = delta.finish.value
            if ended_by_token and last in self._own_stop_ids:
                self.stop_reason = last
        return text

    def take_scored(self) -> Sequence[ScoredToken]:
        """Scored tokens that have not been news yet and whose text has been; all when it ended."""
        if not self.logprobs:
            return ()
        begin = self._reported
        ended = self.finish_reason is not None
        while self._reported < len(self.logprobs) and (
            ended or self._ends[self._reported] <= self._detokenizer.released
        ):
            self._reported += 1
        return list(map(self._scored, range(begin, self._reported)))

    def all_scored(self) -> Sequence[ScoredToken]:
        return list(map(self._scored, range(len(self.logprobs))))

    def _scored(self, place: int) -> ScoredToken:
        begin, end = self._ends[place - 1] if place else 0, self._ends[place]
        return ScoredToken(self.token_ids[place], self.logprobs[place], max(0, min(begin, end - 1)))

    def _decode(self, delta: Delta, *, without_last: bool) -> str:
        ids = delta.token_ids[:-1] if without_last else delta.token_ids
        if delta.logprobs is None:
            return self._detokenizer.push(ids)
        text = ""
        for position in range(len(delta.token_ids)):
            text += self._detokenizer.push(ids[position : position + 1])
            self._ends.append(self._detokenizer.reached)
        return text


class Answer:
    """All choices of a request, in order."""

    def __init__(self, prompt: Prompt, choices: Sequence[Choice]) -> None:
        self.prompt = prompt
        self.choices = choices

    def take(self, index: int, delta: Delta, cancel: Callable[[int], None]) -> News | None:
        """Takes what has arrived for a choice; None when that has ended before.

        Args:
            cancel: ends a choice in the engine; called when one meets a stop string.
        """
        choice = self.choices[index]
        if choice.finish_reason is not None:
            return None  # computed before the engine heard that this choice had met a stop string
        text = choice.push(delta)
        finished = choice.finish_reason is not None
        if finished and delta.finish is None:
            cancel(index)
        return News(index, text, delta.token_ids, finished, choice.take_scored())

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
