"""Prompts that are texts or token ids, without template and pictures."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from concurrent.futures import Executor

from server.api.engine_request import EngineRequests, TokenLimits
from server.api.schemas import GenerationRequest
from server.errors import context_length_exceeded, invalid
from server.frontend.prompt import Prompt
from server.frontend.tokenizer import Tokenizer
from server.messages import Grammar, Submit

INLINE_CHARS_MAX = 8192
"""Longer texts are tokenised in a thread; for shorter ones the hand-over would cost more."""

COUNTED_MAX = 2**20
"""Characters and picture tokens of a text that is only counted. Longer ones would keep the tokens
of other requests waiting for seconds."""


def check_countable(size: int, param: str) -> None:
    """Raises:
    ApiError: 400; the text is so long that nobody can need its count.
    """
    if size > COUNTED_MAX:
        raise invalid(
            f"Invalid '{param}': at most {COUNTED_MAX} characters and picture tokens are counted, "
            f"but got {size}.",
            param=param,
            code="string_above_max_length",
        )


class TextPrompts:
    """Prepares them for one checkpoint.

    Args:
        thread: where long texts are tokenised.
        token_chars_max: no token stands for more characters.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        requests: EngineRequests,
        thread: Executor,
        token_chars_max: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._requests = requests
        self._thread = thread
        self._token_chars_max = token_chars_max

    async def encode(self, text: str, param: str) -> list[int]:
        """Token ids of a text, which may be longer than the context.

        Raises:
            ApiError: as `check_countable`.
        """
        check_countable(len(text), param)
        if len(text) <= INLINE_CHARS_MAX:
            await asyncio.sleep(0)  # many texts in a row leave others their turn
            return self._tokenizer.encode_text(text)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._tokenizer.encode_text, text)

    def check_chars(self, text: str, max_model_len: int) -> None:
        """Refuses a prompt that is too long by its mere size, before it costs anything.

        Raises:
            ApiError: 400 `context_length_exceeded`.
        """
        if len(text) // self._token_chars_max >= max_model_len:
            raise context_length_exceeded(
                max_model_len,
                f"However, your prompt has {len(text)} characters. Please shorten it.",
                param="prompt",
            )

    def check_ids(self, token_ids: Sequence[int], param: str) -> None:
        """Raises:
        ApiError: 400; the model has no embedding for one of them.
        """
        self._requests.check_ids(token_ids, param)

    async def token_limits(self, request: GenerationRequest, prompts: int = 1) -> TokenLimits:
        """As `EngineRequests.token_limits`; many long words are tokenised in the thread."""
        read = functools.partial(self._requests.token_limits, request, prompts)
        if sum(map(len, request.bad_words or ())) <= INLINE_CHARS_MAX:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def submits(
        self,
        request: GenerationRequest,
        limits: TokenLimits,
        token_ids: list[int],
        max_tokens: int,
        grammar: Grammar | None,
    ) -> list[Submit]:
        """One message per choice.

        Args:
            limits: what `token_limits` read of the request.
            max_tokens: longest completion; at least 1, already within the context.
        """
        prompt = Prompt(token_ids, ())
        return self._requests.build(request, limits, prompt, (), max_tokens, grammar=grammar)
