"""An answer as blocks of text and calls of tools, for the wires that are made of such blocks.

Each block begins, gets its pieces and ends before the next one begins. Every answer has at least
one block, if only an empty text.
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

    def push(self, text: str, scored: Sequence[ScoredToken] = ()) -> list[Change]:
        """Takes the next piece of the answer and says what that changed, in order."""
        events = self._parser.push(text) if self._parser else [TextPiece(text)]
        return self._score(self._apply(events), scored)

    def finish(self) -> list[Change]:
        """The answer has ended."""
        changes = self._apply(self._parser.finish() if self._parser else [])
        if not self.all:
            changes += self._begin(TextBlock())
        return changes + self._end(last=True)

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
        if isinstance(last, TextBlock):
            last.text += piece.text
            return [Piece(last, piece.text)]
        block = TextBlock(piece.text)
        return [*self._begin(block), Piece(block, piece.text)]

    def _score(self, changes: list[Change], scored: Sequence[ScoredToken]) -> list[Change]:
        """Gives tokens to the text that they made. Those of calls are not reported: the wires have
        no place for them."""
        last = self.all[-1] if self._open else None
        if not scored or not isinstance(last, TextBlock):
            return changes
        last.scored += scored
        if changes and isinstance(piece := changes[-1], Piece):
            return [*changes[:-1], Piece(last, piece.text, scored)]
        return [*changes, Piece(last, "", scored)]

    def _begin(self, block: Block) -> list[Change]:
        ended = self._end()
        self.all.append(block)
        self._open = True
        return [*ended, Begin(block)]

    def _end(self, *, last: bool = False) -> list[Change]:
        was_open, self._open = self._open, False
        return [End(self.all[-1], last)] if was_open else []
