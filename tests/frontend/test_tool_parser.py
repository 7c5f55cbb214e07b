from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.frontend.tool_parser import ArgumentsPiece, CallBegin, Event, TextPiece, ToolParser
from server.frontend.tools import call_text


@dataclass
class Read:
    """What the events say together."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case TextPiece(text):
                    assert text
                    self.text += text
                case CallBegin(name):
                    self.calls.append((name, ""))
                case ArgumentsPiece(text):
                    assert text
                    name, before = self.calls[-1]
                    self.calls[-1] = name, before + text


def read(*pieces: str) -> Read:
    parser, result = ToolParser(), Read()
    events = [event for piece in pieces for event in parser.push(piece)] + parser.finish()
    result.take(events)
    assert parser.calls == len(result.calls)
    whole = "".join(pieces)
    texts = [event for event in events if isinstance(event, TextPiece)]
    assert all(whole[piece.at :].startswith(piece.text) for piece in texts)
    return result


ONE = call_text("weather", '{"city": "Köln }", "x": {"y": ["}", "\\"]"]}}')
TWO = call_text("time", "{}")


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("", "", []),
        ("Hello \n", "Hello \n", []),
        (ONE, "", [("weather", '{"city": "Köln }", "x": {"y": ["}", "\\"]"]}}')]),
        (f"{TWO}\n{TWO}", "", [("time", "{}"), ("time", "{}")]),
        (f"{TWO}{TWO}\n", "", [("time", "{}"), ("time", "{}")]),
        (f"Let me see.\n\n{TWO}", "Let me see.", [("time", "{}")]),
        (f"  {TWO}", "", [("time", "{}")]),
        (f"a {TWO} b ", "a b", [("time", "{}")]),
        ('<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>', "", [("f", '{"a":1}')]),
        ('<tool_call>\n{"name": "f"}\n</tool_call>', "", [("f", "{}")]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", [("f", '{"a": 1}')]),
        # Cut by the length, at every stage.
        ("a <", "a <", []),
        ("a <tool_call", "a <tool_call", []),
        ("a <tool_call>", "a <tool_call>", []),
        ('a <tool_call>{"name": "f', 'a <tool_call>{"name": "f', []),
        ('<tool_call>{"name": "f"}', "", [("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": {"a": "b', "", [("f", '{"a": "b')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}', "", [("f", '{"a": 1}')]),
        # What is no call comes out as it was written.
        ("a <tool_call>x</tool_call> b", "a <tool_call>x</tool_call> b", []),
        ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ('<tool_call>{"name": "a b"}</tool_call>', '<tool_call>{"name": "a b"}</tool_call>', []),
        ("<tool_call>[]</tool_call>", "<tool_call>[]</tool_call>", []),
        (
            '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
            '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
            [],
        ),
        ("a <b> </tool_call>", "a <b> </tool_call>", []),
    ],
)
def test_whatever_the_pieces_the_calls_are_the_same(
    text: str, said: str, calls: list[tuple[str, str]]
) -> None:
    expected = Read(said, calls)
    assert read(text) == expected
    assert read(*text) == expected
    for cut in range(len(text)):
        assert read(text[:cut], text[cut:]) == expected


JSON_TEXT = st.text(st.sampled_from('abü{}[]"\\:,<>/ \n你🎉'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(
    st.tuples(
        st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True), st.dictionaries(JSON_TEXT, VALUES)
    ),
    max_size=3,
)


@settings(derandomize=True, max_examples=150)
@given(
    calls=CALLS,
    said=st.text(st.sampled_from("ab<> {}"), max_size=10),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    indent=st.sampled_from([None, 2]),
)
def test_calls_survive_any_cut(
    calls: list[tuple[str, dict[str, object]]], said: str, cuts: list[int], indent: int | None
) -> None:
    arguments = [json.dumps(value, ensure_ascii=False, indent=indent) for _, value in calls]
    written = [call_text(name, text) for (name, _), text in zip(calls, arguments, strict=True)]
    text = "\n".join([said, *written])
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    result = read(*(text[begin:end] for begin, end in itertools.pairwise(edges)))
    assert result.calls == [(name, text) for (name, _), text in zip(calls, arguments, strict=True)]
    assert result.text == (said.rstrip() if calls else said)


def test_arguments_come_as_they_are_written() -> None:
    parser = ToolParser()
    assert parser.push('Hi <tool_call>\n{"name": "f", "argu') == [TextPiece("Hi")]
    assert parser.push('ments": {"a"') == [CallBegin("f"), ArgumentsPiece('{"a"')]
    assert parser.push(': "}') == [ArgumentsPiece(': "}')]
    assert parser.push('"}}\n</tool') == [ArgumentsPiece('"}')]
    assert parser.push("_call>") == []
    assert parser.finish() == []


def test_text_waits_only_for_what_may_become_a_tag() -> None:
    parser = ToolParser()
    assert parser.push("a b") == [TextPiece("a b")]
    assert parser.push(" <tool") == []
    assert parser.push("box") == [TextPiece(" <toolbox")]
    assert parser.push(" ") == []
    assert parser.finish() == [TextPiece(" ")]
