"""An answer as blocks of text and calls of tools, for the wires that are made of such blocks.

Each block begins, gets its pieces and ends before the next one begins. Every answer has at least
one block, if only an empty text. Scored tokens are news once, with the text that they begin in,
whatever the pieces in which both arrive. Those of calls are not reported: the wires have no place
for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from server.api.answer import ScoredToken
from server.frontend.tool_parser import ArgumentsPiece, CallBegin, Event, TextPiece, ToolParser


@dataclass(slots=True)
class TextBlock:
    text: str = ""
    scored: list[ScoredToken] = field(default_factory=list)
    """Its tokens, where log probabilities were asked for."""


@dataclass(slots=True)
class CallBlock:
    name: str
    id: str
    arguments: str = ""


Block = TextBlock | CallBlock


@dataclass(frozen=True, slots=True)
class Begin:
    """A block has begun."""

    block: Block


@dataclass(frozen=True, slots=True)
class Piece:
    """This was added to a block."""

    block: Block
    text: str
    scored: Sequence[ScoredToken] = ()


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more will be added to a block."""

    block: Block
    last: bool
    """It is the last one of the answer."""


Change = Begin | Piece | End


class Blocks:
    """The blocks of one answer while it grows.

    Args:
        with_tools: look for calls of tools in the text.
        id_prefix: what the ids of calls begin with.
    """

    def __init__(self, *, with_tools: bool, id_prefix: str) -> None:
        self._id_prefix = id_prefix
        self.all: list[Block] = []
        self._parser = ToolParser() if with_tools else None
        self._open = False
        self._text_begin = self._text_end = 0
        """Where in the answer the last block of text begins and ends, in characters."""
        self._waiting: list[ScoredToken] = []
        """Tokens of what may be text and has not come out of the parser."""

    def push(self, text: str, scored: Sequence[ScoredToken] = ()) -> list[Change]:
        """Takes the next piece of the answer and says what that changed, in order.

        Args:
            scored: tokens of this text and of the text before it, in order.
        """
        self._waiting += scored
        events = self._parser.push(text) if self._parser else [TextPiece(text, self._text_end)]
        return self._belated(self._text_end) + self._apply(events)

    def finish(self) -> list[Change]:
        """The answer has ended."""
        changes = self._apply(self._parser.finish() if self._parser else [])
        if not self.all:
            changes += self._begin(TextBlock())
        last = self._waiting[-1].at + 1 if self._waiting else 0
        return changes + self._belated(last) + self._end(last=True)

    def _apply(self, events: Iterable[Event]) -> list[Change]:
        changes: list[Change] = []
        for event in events:
            if isinstance(event, CallBegin):
                changes += self._begin(
                    CallBlock(event.name, f"{self._id_prefix}_{uuid.uuid4().hex}")
                )
            elif event.text:
                changes += self._add(event)
        return changes

    def _add(self, piece: TextPiece | ArgumentsPiece) -> list[Change]:
        last = self.all[-1] if self._open else None
        if isinstance(piece, ArgumentsPiece):
            assert isinstance(last, CallBlock)
            last.arguments += piece.text
            return [Piece(last, piece.text)]
        begun: list[Change] = []
        if not isinstance(last, TextBlock):
            last, self._text_begin = TextBlock(), piece.at
            begun = self._begin(last)
        self._text_end = piece.at + len(piece.text)
        return [*begun, self._say(last, piece.text, self._text_end)]

    def _belated(self, end: int) -> list[Change]:
        """Tokens of a text that has come before them, as far as `end`."""
        last = self.all[-1] if self._open else None
        if not isinstance(last, TextBlock):
            return []
        piece = self._say(last, "", end)
        return [piece] if piece.scored else []

    def _say(self, block: TextBlock, text: str, end: int) -> Piece:
        """Adds to a text, with its tokens up to `end`; what comes before it is of calls."""
        count = sum(token.at < end for token in self._waiting)
        scored = [token for token in self._waiting[:count] if token.at >= self._text_begin]
        del self._waiting[:count]
        block.text += text
        block.scored += scored
        return Piece(block, text, scored)

    def _begin(self, block: Block) -> list[Change]:
        ended = self._end()
        self.all.append(block)
        self._open = True
        return [*ended, Begin(block)]

    def _end(self, *, last: bool = False) -> list[Change]:
        was_open, self._open = self._open, False
        return [End(self.all[-1], last)] if was_open else []
