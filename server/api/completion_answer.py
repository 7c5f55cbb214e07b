"""The answer to a completion request: several prompts, each with its choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from server.api.answer import Answer, Choice, News
from server.frontend.prompt import Prompt
from server.messages import Delta, FinishReason, TokenLogprob


class CompletionAnswer(Answer):
    """All choices of all prompts: those of the first prompt, then those of the next.

    Args:
        silent: nothing was to be generated, so the token that the engine drew is dropped.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Choice], *, silent: bool
    ) -> None:
        super().__init__(Prompt([token_id for ids in prompts for token_id in ids], ()), choices)
        self._prompts = prompts
        self._choices_each = len(choices) // len(prompts)
        self._silent = silent

    def prompt_of(self, index: int) -> Sequence[int]:
        """Token ids in front of a choice."""
        return self._prompts[index // self._choices_each]

    def take(self, index: int, delta: Delta, cancel: Callable[[int], None]) -> News | None:
        return super().take(index, _without_tokens(delta) if self._silent else delta, cancel)

    @property
    def cached_tokens(self) -> int:
        """Of the first choice of each prompt: the others share its prompt."""
        return sum(choice.cached_tokens for choice in self.choices[:: self._choices_each])


def _without_tokens(delta: Delta) -> Delta:
    """The engine always draws one token; asked for none, that is where the length ends it."""
    finish = None if delta.finish is None else FinishReason.LENGTH
    logprobs: list[TokenLogprob] | None = None if delta.logprobs is None else []
    return msgspec.structs.replace(delta, token_ids=[], logprobs=logprobs, finish=finish)
