"""Requests whose grammar is still being compiled: they are not in the queue yet, so nobody waits
behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from server.engine.request import Matcher
from server.messages import Grammar, Submit


class Compiler(Protocol):
    """Turns grammars into matchers, elsewhere."""

    def compile(self, grammar: Grammar) -> Future[Matcher]: ...


@dataclass(frozen=True, slots=True)
class Incoming:
    peer: bytes
    submit: Submit
    pixels: Sequence[memoryview | bytes]
    matcher: Future[Matcher]


class Intake:
    """Holds requests from their arrival until their matcher is there."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._incoming: list[Incoming] = []

    @property
    def busy(self) -> bool:
        return bool(self._incoming)

    def add(self, peer: bytes, submit: Submit, pixels: Sequence[memoryview | bytes]) -> None:
        """Takes a request with a grammar."""
        assert submit.grammar is not None
        matcher = self._compiler.compile(submit.grammar)
        self._incoming.append(Incoming(peer, submit, pixels, matcher))

    def cancel(self, peer: bytes, request_id: int) -> bool:
        """Drops a request; false when it is not here."""
        return self._drop(lambda one: (one.peer, one.submit.id) == (peer, request_id))

    def forget_peer(self, peer: bytes) -> None:
        self._drop(lambda one: one.peer == peer)

    def _drop(self, leaves: Callable[[Incoming], bool]) -> bool:
        """Others need not wait until the grammars of these have been compiled."""
        dropped = self._take(leaves)
        for incoming in dropped:
            incoming.matcher.cancel()
        return bool(dropped)

    def compiled(self) -> list[Incoming]:
        """Hands out the requests whose future is done, in the order of arrival."""
        return self._take(lambda one: one.matcher.done())

    def _take(self, leaves: Callable[[Incoming], bool]) -> list[Incoming]:
        """Takes out those that leave. Each is asked once: a matcher may be done a moment later."""
        taken: list[Incoming] = []
        kept: list[Incoming] = []
        for incoming in self._incoming:
            (taken if leaves(incoming) else kept).append(incoming)
        self._incoming = kept
        return taken
