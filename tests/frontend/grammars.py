"""Which texts a grammar takes, byte by byte, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import llguidance

from server.messages import Grammar, GrammarKind


class Verdict(Enum):
    REFUSED = "refused"
    """No answer begins like this."""
    UNFINISHED = "unfinished"
    COMPLETE = "complete"
    """An answer may end here."""


class _Bytes:
    """A tokenizer whose tokens are the bytes; 0 stands for the end."""

    eos_token_id = 0
    bos_token_id = 0
    tokens: Sequence[bytes] = [b"\xff<eos>", *(bytes([byte]) for byte in range(1, 256))]
    special_token_ids = (0,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def judge(grammar: Grammar, text: str) -> Verdict:
    tokenizer = llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(_Bytes()), n_vocab=256, slices=[]
    )
    matcher = llguidance.LLMatcher(tokenizer, _source(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    if matcher.try_consume_tokens(data) < len(data):
        return Verdict.REFUSED
    return Verdict.COMPLETE if matcher.is_accepting() else Verdict.UNFINISHED


def _source(grammar: Grammar) -> str:
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        return llguidance.LLMatcher.grammar_from_json_schema(grammar.text)
    if grammar.kind is GrammarKind.REGEX:
        return llguidance.LLMatcher.grammar_from_regex(grammar.text)
    return llguidance.LLMatcher.grammar_from_lark(grammar.text)
