"""Grammars that answers must match: compiled beside the loop, followed token by token.

llguidance computes which tokens may come next, lazily and without the interpreter lock, from a
grammar and the bytes of every token. What a grammar costs is bounded by its fuel: a request whose
grammar is too complex fails alone. Compiled grammars are kept and copied for each request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from server.engine.request import Matcher
from server.messages import Grammar, GrammarKind

CACHE_ENTRIES = 256


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


class GrammarMatcher:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """Bit i, little-endian, says whether token i may come next."""
        return self._matcher.compute_bitmask()

    def accept(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)

    @property
    def failed(self) -> bool:
        """The grammar has become too complex to follow, or a token did not fit."""
        return self._matcher.is_error()

    @property
    def complete(self) -> bool:
        """Nothing but the end can follow."""
        return self._matcher.is_stopped()


class GrammarCompiler:
    """Compiles grammars in a thread, each once as long as it is remembered."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(vocabulary), n_vocab=vocab_size, eos_token=vocabulary.stop_ids
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def compile(self, grammar: Grammar) -> Future[Matcher]:
        """A matcher at the beginning of the grammar; the future raises where it is no grammar."""
        return self._thread.submit(self._compile, grammar)

    def _compile(self, grammar: Grammar) -> Matcher:
        compiled = self._compiled.pop(grammar, None)
        if compiled is None:
            compiled = LLMatcher(self._tokenizer, _translate(grammar), log_level=0)
            if compiled.is_error():
                raise ValueError("the grammar cannot be compiled")
            compiled.compute_bitmask()  # the first mask of a grammar costs most
        self._compiled[grammar] = compiled
        if len(self._compiled) > CACHE_ENTRIES:
            self._compiled.popitem(last=False)
        return GrammarMatcher(compiled.deep_copy())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _translate(grammar: Grammar) -> str:
    """Into llguidance's own form."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(grammar.text)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.text)
