"""Requests whose grammar is still being compiled: they are not in the queue yet, so nobody waits
behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        found = [i for i in self._incoming if (i.peer, i.submit.id) == (peer, request_id)]
        self._drop(found)
        return bool(found)

    def forget_peer(self, peer: bytes) -> None:
        self._drop([incoming for incoming in self._incoming if incoming.peer == peer])

    def _drop(self, dropped: Sequence[Incoming]) -> None:
        """Others need not wait until the grammars of these have been compiled."""
        for incoming in dropped:
            incoming.matcher.cancel()
        self._incoming = [incoming for incoming in self._incoming if incoming not in dropped]

    def compiled(self) -> Iterator[Incoming]:
        """Hands out the requests whose future is done, in the order of arrival."""
        done = [incoming for incoming in self._incoming if incoming.matcher.done()]
        self._incoming = [incoming for incoming in self._incoming if incoming not in done]
        yield from done
