"""Log probabilities as JSON has them, in OpenAI's form for answers and in vLLM's for prompts.

A token's bytes are the true ones, also where it is a part of a character; its text has U+FFFD
there. Minus infinity and NaN, which JSON does not know, become the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from server.api.answer import ScoredToken
from server.frontend.tokenizer import Tokenizer
from server.messages import TokenLogprob

FLOOR = -9999.0


def floored(logprob: float) -> float:
    """The number where it is one above the floor, else the floor."""
    return max(FLOOR, logprob)  # in this order NaN gives the floor, too


class LogprobFormat:
    """Writes log probabilities for one request.

    Args:
        as_ids: name tokens `token_id:N` instead of writing their text.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool = False) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def content(self, scored: Iterable[ScoredToken]) -> list[dict[str, Any]]:
        """OpenAI's `logprobs.content`."""
        return [self._scored(token.token_id, token.logprob) for token in scored]

    def prompt(
        self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> list[dict[str, Any] | None]:
        """vLLM's `prompt_logprobs`: one object by token id for each token but the first.

        Args:
            logprobs: for the tokens from the second on.
        """
        return [None, *map(self._prompt_token, token_ids[1:], logprobs)]

    def _scored(self, token_id: int, logprob: TokenLogprob) -> dict[str, Any]:
        alternatives = zip(logprob.top_ids, logprob.top_logprobs, strict=True)
        return {
            **self._token(token_id, logprob.logprob),
            "top_logprobs": [self._token(top_id, value) for top_id, value in alternatives],
        }

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id, keep_special=True)
        name = f"token_id:{token_id}" if self._as_ids else data.decode(errors="replace")
        return {"token": name, "logprob": floored(logprob), "bytes": list(data)}

    def _prompt_token(self, token_id: int, logprob: TokenLogprob) -> dict[str, Any]:
        by_id = {
            str(top_id): self._prompt_entry(top_id, value, rank)
            for rank, (top_id, value) in enumerate(
                zip(logprob.top_ids, logprob.top_logprobs, strict=True), start=1
            )
        }
        by_id.setdefault(str(token_id), self._prompt_entry(token_id, logprob.logprob, None))
        return by_id

    def _prompt_entry(self, token_id: int, logprob: float, rank: int | None) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id, keep_special=True)
        return {
            "logprob": floored(logprob),
            "rank": rank,
            "decoded_token": data.decode(errors="replace"),
        }
