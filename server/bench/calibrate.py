"""How many words make so many tokens: asked of the server, whose tokenizer has its own idea."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from server.bench.client import Server
from server.bench.plan import BenchError
from server.bench.scenarios import WORDS

SHORT, LONG = 16, 144
"""Words of the two prompts that are counted."""


async def words_for(server: Server) -> Callable[[int], int]:
    """A line through two prompts whose tokens the server counts.

    Raises:
        BenchError: the server does not answer a plain request, or does not count its tokens.
    """
    short, long = [await _prompt_tokens(server, words) for words in (SHORT, LONG)]
    tokens_a_word = max((long - short) / (LONG - SHORT), 0.1)
    return lambda tokens: max(1, round(SHORT + (tokens - short) / tokens_a_word))


async def _prompt_tokens(server: Server, words: int) -> int:
    text = " ".join(random.Random(f"calibrate {words}").choices(WORDS, k=words))
    fields = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    measured, _ = await server.ask(fields, epoch_s=time.perf_counter(), due_s=0.0)
    if measured.prompt_tokens > 0:
        return measured.prompt_tokens
    if measured.error is not None:
        raise BenchError(f"{server.base_url} did not answer a plain request: {measured.error}")
    raise BenchError(
        f"{server.base_url} reports no usage in its streams, by which prompts are sized"
    )
