"""Grammars that answers must match: compiled beside the loop, followed token by token.

llguidance computes which tokens may come next, lazily and without the interpreter lock. What the
API lets through has been built once already, in time; what a mask may cost is bounded here, so a
request whose grammar is too complex fails alone. Compiled grammars are kept and copied for each
request.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from llguidance import LLMatcher

from server.engine.request import Matcher
from server.grammars import MatcherFactory
from server.messages import Grammar

CACHE_ENTRIES = 256
SPARE_S = 0.5
PER_TOKEN_S = 0.005
"""What a matcher may cost: so much at once, and so much more for each token. A usual one takes a
hundredth of it."""


class GrammarMatcher:
    """How far one answer has come in its grammar.

    Args:
        clock: processor time of the calling thread, in seconds. Time that passes while other
            programs run is nobody's fault.
    """

    def __init__(self, matcher: LLMatcher, clock: Callable[[], float] = time.thread_time) -> None:
        self._matcher = matcher
        self._clock = clock
        self._left_s = SPARE_S

    def mask(self) -> bytes:
        """Bit i, little-endian, says whether token i may come next."""
        began_s = self._clock()
        mask = self._matcher.compute_bitmask()
        self._left_s -= self._clock() - began_s
        return mask

    def accept(self, token_id: int) -> None:
        began_s = self._clock()
        self._matcher.consume_token(token_id)
        self._left_s += PER_TOKEN_S - (self._clock() - began_s)

    @property
    def failed(self) -> bool:
        """The grammar takes too long or has become too complex to follow, or a token did not
        fit."""
        return self._left_s < 0 or self._matcher.is_error()

    @property
    def complete(self) -> bool:
        """Nothing but the end can follow."""
        return self._matcher.is_stopped()


class GrammarCompiler:
    """Compiles grammars in a thread, each once as long as it is remembered."""

    def __init__(self, factory: MatcherFactory) -> None:
        self._factory = factory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def compile(self, grammar: Grammar) -> Future[Matcher]:
        """A matcher at the beginning of the grammar; the future raises where it is no grammar."""
        return self._thread.submit(self._compile, grammar)

    def _compile(self, grammar: Grammar) -> Matcher:
        compiled = self._compiled.pop(grammar, None) or self._factory.make(grammar)
        self._compiled[grammar] = compiled
        if len(self._compiled) > CACHE_ENTRIES:
            self._compiled.popitem(last=False)
        return GrammarMatcher(compiled.deep_copy())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
