"""Finds tool calls in an answer while it grows.

Whatever the pieces in which the text arrives, the events together say the same: the text around the
calls, and for each call its name once and its arguments as they were written. What may become a tag
is held back, and so is the white space in front of it, which is dropped where a call follows. What
looks like a call and is none comes out as text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from server.frontend.tools import CALL_BEGIN, CALL_END

NAME = r"[A-Za-z0-9_-]{1,64}"
HEAD = re.compile(
    rf'\s*\{{\s*"name"\s*:\s*"(?P<name>{NAME})"\s*(?:,\s*"arguments"\s*:\s*(?=\{{)|(?P<end>\}}))'
)
"""A call up to its arguments, or all of one that has none."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str
    at: int = field(default=0, compare=False)
    """Where in the whole answer it begins, in characters."""


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of this name; its arguments follow."""

    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    """The next piece of the arguments of the last call that began: raw JSON."""

    text: str


Event = TextPiece | CallBegin | ArgumentsPiece


class ToolParser:
    """Feed it with `push`, end it with `finish`."""

    def __init__(self) -> None:
        self.calls = 0
        """Calls that have begun."""
        self._rest = ""
        self._pushed = 0
        """Characters of the answer so far; `_rest` is the last of them."""
        self._gap = ""
        """White space in front of what may be a call."""
        self._step = self._read_text
        self._scanner = _ObjectScanner()

    def push(self, text: str) -> list[Event]:
        """Takes the next piece of the answer."""
        self._rest += text
        self._pushed += len(text)
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def finish(self) -> list[Event]:
        """What was held back; the answer has ended."""
        if self._step == self._read_head:
            return self._whole_call(self._rest) or [self._no_call(self._rest)]
        idle = self._step != self._read_text or (self.calls and self._rest.isspace())
        return [] if idle or not self._rest else [TextPiece(self._rest, self._at)]

    @property
    def _at(self) -> int:
        """Where `_rest` begins."""
        return self._pushed - len(self._rest)

    def _no_call(self, body: str) -> TextPiece:
        """What began like a call, at the begin of `_rest`."""
        before = self._gap + CALL_BEGIN
        return TextPiece(before + body, self._at - len(before))

    def _read_text(self, events: list[Event]) -> bool:
        """Up to the next call. Like the other steps it tells whether there is more to read."""
        before, tag, after = self._rest.partition(CALL_BEGIN)
        certain = before if tag else before[: len(before) - _partial_tag(before)]
        text = certain.rstrip()
        if text:
            events.append(TextPiece(text, self._at))
        if not tag:
            self._rest = before[len(text) :]
            return False
        self._gap, self._rest, self._step = certain[len(text) :], after, self._read_head
        return True

    def _read_head(self, events: list[Event]) -> bool:
        """Up to the arguments."""
        if head := HEAD.match(self._rest):
            self.calls += 1
            events.append(CallBegin(head["name"]))
            self._rest = self._rest[head.end() :]
            self._scanner = _ObjectScanner()
            self._step = self._read_arguments
            if head["end"]:
                events.append(ArgumentsPiece("{}"))
                self._step = self._read_tail
            return True
        # Perhaps written in some other way, which can only be read whole.
        body, tag, after = self._rest.partition(CALL_END)
        if not tag:
            return False
        events += self._whole_call(body) or [self._no_call(body + CALL_END)]
        self._rest, self._step = after, self._read_text
        return True

    def _read_arguments(self, events: list[Event]) -> bool:
        end = self._scanner.end_in(self._rest)
        piece = self._rest if end is None else self._rest[:end]
        if piece:
            events.append(ArgumentsPiece(piece))
        self._rest = self._rest[len(piece) :]
        if end is not None:
            self._step = self._read_tail
        return end is not None

    def _read_tail(self, events: list[Event]) -> bool:
        """What closes a call."""
        _, tag, after = self._rest.partition(CALL_END)
        if tag:
            self._rest, self._step = after, self._read_text
        return bool(tag)

    def _whole_call(self, body: str) -> list[Event]:
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):
            return []
        name = call.get("name") if isinstance(call, dict) else None
        arguments = call.get("arguments", {}) if isinstance(call, dict) else None
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            return []
        if not isinstance(arguments, dict):
            return []
        self.calls += 1
        return [CallBegin(name), ArgumentsPiece(json.dumps(arguments))]


def _partial_tag(text: str) -> int:
    """Length of the longest beginning of the tag that the text ends with."""
    longest = min(len(text), len(CALL_BEGIN) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(CALL_BEGIN[:n])), 0)


class _ObjectScanner:
    """Finds the end of a JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def end_in(self, text: str) -> int | None:
        """Where in the next piece the object ends, None when it goes on."""
        for position, char in enumerate(text, start=1):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return position
        return None
