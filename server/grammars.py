"""Grammars as matchers of llguidance: the one way to make them, for the check that the API orders
and for the engine alike, so that what has passed the check is what the engine gets.

Constructing a matcher can take any time and any memory: it belongs where it may be killed, or after
a check that was. What follows is bounded by `LIMITS`: beyond them a matcher fails, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from server.messages import Grammar, GrammarKind

LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    max_grammar_size=200_000,
    max_items_in_row=500,
    step_max_items=10_000,
    verbose_errors=False,
)
"""The library's own limits let an ambiguous grammar take seconds for one mask over 64,000 tokens;
these stop it at tenths. An object of 1,000 optional properties fits in half of them."""


class Vocabulary:
    """The tokens of a model as llguidance wants to see them.

    Args:
        token_bytes: what each token adds to the text; its index is its id.
        special_ids: tokens that add nothing and are never part of a match.
        stop_ids: tokens that may follow a complete match; the first is the model's own end.
        encode: text to ids.
    """

    bos_token_id = None

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        special_ids: Sequence[int],
        stop_ids: Sequence[int],
        encode: Callable[[str], list[int]],
    ) -> None:
        self.tokens = list(token_bytes)
        for token_id in special_ids:
            # llguidance takes a token that begins with 0xff, which begins no character, for a
            # special one.
            self.tokens[token_id] = b"\xff<|%d|>" % token_id
        self.special_token_ids = list(special_ids)
        self.eos_token_id = stop_ids[0]
        self.stop_ids = list(stop_ids)
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


class MatcherFactory:
    """Makes matchers for one vocabulary.

    Args:
        vocab_size: rows of the model's output; ids beyond the vocabulary never match.
    """

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(vocabulary), n_vocab=vocab_size, eos_token=vocabulary.stop_ids
        )

    def make(self, grammar: Grammar) -> LLMatcher:
        """A matcher at the beginning of the grammar, its first mask computed: that costs most.

        Raises:
            ValueError: with the library's words; the grammar cannot be built.
        """
        matcher = LLMatcher(self._tokenizer, _translate(grammar), log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher


def _translate(grammar: Grammar) -> str:
    """Into llguidance's own form."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(grammar.text)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.text)
