"""Log probabilities as `/v1/completions` reports them: four lists side by side.

A token is written as its text; one that is no whole character by itself as `bytes:\\xe2`. Offsets
are characters into the choice's text, so the tokens of one character share theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from server.api.answer import ScoredToken
from server.api.logprobs import floored
from server.frontend.detokenizer import Detokenizer
from server.frontend.tokenizer import Tokenizer
from server.messages import TokenLogprob


class CompletionLogprobs:
    """The lists of one choice, as they grow.

    Args:
        detokenizer: a fresh one that decodes as the text of the choice was decoded.
        as_ids: name tokens `token_id:N` instead of writing their text.
    """

    def __init__(self, tokenizer: Tokenizer, detokenizer: Detokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids
        self._detokenizer = detokenizer
        self._offset = 0
        self._reported = 0
        self._tokens: list[str] = []
        self._token_logprobs: list[float | None] = []
        self._top_logprobs: list[dict[str, float] | None] = []
        self._text_offset: list[int] = []

    def take_prompt(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> None:
        """Adds a prompt whose first token, having nothing before it, has no log probability."""
        for token_id, logprob in zip(token_ids, [None, *logprobs], strict=True):
            self._add(token_id, logprob)

    def take(self, scored: Iterable[ScoredToken]) -> None:
        for token in scored:
            self._add(token.token_id, token.logprob)

    def news(self) -> dict[str, Any]:
        """What has been added since the last call."""
        begin, self._reported = self._reported, len(self._tokens)
        return {
            "tokens": self._tokens[begin:],
            "token_logprobs": self._token_logprobs[begin:],
            "top_logprobs": self._top_logprobs[begin:],
            "text_offset": self._text_offset[begin:],
        }

    def _add(self, token_id: int, logprob: TokenLogprob | None) -> None:
        self._tokens.append(self._name(token_id))
        self._text_offset.append(self._offset)
        self._offset += len(self._detokenizer.push([token_id]))
        self._token_logprobs.append(None if logprob is None else floored(logprob.logprob))
        self._top_logprobs.append(None if logprob is None else self._likeliest(token_id, logprob))

    def _likeliest(self, token_id: int, logprob: TokenLogprob) -> dict[str, float]:
        """By name; the token itself is always among them."""
        by_name: dict[str, float] = {}
        for top_id, value in zip(logprob.top_ids, logprob.top_logprobs, strict=True):
            # Several tokens can have one text; the likeliest of them comes first.
            by_name.setdefault(self._name(top_id), floored(value))
        by_name.setdefault(self._name(token_id), floored(logprob.logprob))
        return by_name

    def _name(self, token_id: int) -> str:
        if self._as_ids:
            return f"token_id:{token_id}"
        data = self._tokenizer.token_bytes(token_id, keep_special=True)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
