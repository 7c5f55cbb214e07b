from __future__ import annotations

from typing import Any

import pytest

from server.api.conversation import (
    VIDEOS_MAX,
    Conversation,
    Picture,
    Shown,
    Video,
    read_conversation,
)
from server.api.schemas import Message
from server.errors import ApiError
from server.frontend.template import ImagePart, TextPart, Turn, VideoPart
from server.frontend.video_sampling import Sampling

SAMPLING = Sampling(3)


def read_all(*messages: dict[str, Any]) -> Conversation:
    return read_conversation([Message.model_validate(message) for message in messages], SAMPLING)


def read(*messages: dict[str, Any]) -> tuple[tuple[Turn, ...], tuple[Shown, ...]]:
    conversation = read_all(*messages)
    return conversation.turns, conversation.media


def test_roles_become_turns() -> None:
    turns, pictures = read(
        {"role": "developer", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "assistant", "content": "d", "tool_calls": [], "function_call": None},
        {"role": "user", "content": ""},
    )
    assert [(turn.role, turn.parts) for turn in turns] == [
        ("system", (TextPart("a"),)),
        ("system", (TextPart("b"),)),
        ("user", (TextPart("c"),)),
        ("assistant", (TextPart("d"),)),
        ("user", (TextPart(""),)),
    ]
    assert pictures == ()


def test_a_refusal_of_a_former_answer_is_its_text() -> None:
    turns, _ = read(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "refusal": "b"},
        {"role": "assistant", "content": "c", "refusal": "d"},
        {"role": "assistant", "content": "e", "refusal": ""},
    )
    assert [turn.parts for turn in turns[1:]] == [
        (TextPart("b"),),
        (TextPart("c"), TextPart("d")),
        (TextPart("e"),),
    ]
    with pytest.raises(ApiError) as caught:
        read({"role": "user", "content": "a", "refusal": "b"})
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "messages[0].role")


def test_parts_and_pictures_keep_their_order_and_their_paths() -> None:
    turns, pictures = read(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "1"},
                {"type": "image_url", "image_url": {"url": "data:a", "detail": "high"}},
                {"type": "input_text", "text": "2"},
                {"type": "image_url", "image_url": "data:b"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "3"},
                {"type": "refusal", "refusal": "4"},
                {"type": "input_image", "image_url": "data:c", "detail": "auto"},
            ],
        },
    )
    assert turns[0].parts == (TextPart("1"), ImagePart(), TextPart("2"), ImagePart())
    assert turns[1].parts == (TextPart("3"), TextPart("4"), ImagePart())
    assert pictures == (
        Picture("data:a", "messages[0].content[1].image_url.url"),
        Picture("data:b", "messages[0].content[3].image_url.url"),
        Picture("data:c", "messages[1].content[2].image_url"),
    )


def call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


def test_calls_and_results_are_texts_in_the_hermes_format() -> None:
    turns, _ = read(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("f", '{"a": 1}'), call("g", "")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "so", "function_call": {"name": "h", "arguments": "x"}},
        {"role": "function", "name": "h", "content": "three"},
    )
    one = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    two = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    broken = '<tool_call>\n{"name": "h", "arguments": "x"}\n</tool_call>'
    begin, end = "<tool_response>", "</tool_response>"
    assert [(turn.role, [part.text for part in turn.parts]) for turn in turns] == [  # type: ignore[union-attr]
        ("assistant", [one, two]),
        ("user", [begin, "one", end, begin, "two", end]),
        ("assistant", ["so", broken]),
        ("user", [begin, "three", end]),
    ]


def test_results_may_hold_pictures() -> None:
    turns, pictures = read(
        {
            "role": "tool",
            "content": [{"type": "image_url", "image_url": {"url": "data:a"}}],
        }
    )
    assert turns[0].parts == (
        TextPart("<tool_response>"),
        ImagePart(),
        TextPart("</tool_response>"),
    )
    assert pictures[0].param == "messages[0].content[0].image_url.url"


def test_counts_the_characters_of_all_texts() -> None:
    conversation = read_all(
        {"role": "user", "content": "four"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:a"}]},
        {"role": "user", "content": "three"},
    )
    assert conversation.text_chars == 9
    assert conversation.picture_count == 1


VIDEO = {"type": "video_url", "video_url": {"url": "data:v"}}


def test_a_video_stands_for_as_many_pictures_as_frames() -> None:
    conversation = read_all({"role": "user", "content": [VIDEO, {"type": "text", "text": "What?"}]})
    assert conversation.turns[0].parts == (VideoPart(3), TextPart("What?"))
    assert conversation.media == (
        Video("data:v", "messages[0].content[0].video_url.url", SAMPLING),
    )
    assert conversation.picture_count == 3


def test_a_request_holds_a_bounded_number_of_videos() -> None:
    read_all({"role": "user", "content": [VIDEO] * VIDEOS_MAX})
    with pytest.raises(ApiError, match=f"at most {VIDEOS_MAX} videos") as caught:
        read_all(
            {"role": "user", "content": [VIDEO]}, {"role": "user", "content": [VIDEO] * VIDEOS_MAX}
        )
    assert caught.value.param == f"messages[1].content[{VIDEOS_MAX - 1}]"


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "tool"}, "messages[0].content", "missing_required_parameter"),
        ({"role": "assistant"}, "messages[0].content", "missing_required_parameter"),
        ({"role": "robot", "content": "x"}, "messages[0].role", "invalid_value"),
        ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
        (
            {
                "role": "user",
                "content": "x",
                "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
            },
            "messages[0].role",
            "unsupported_value",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio"}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": None}]},
            "messages[0].content[0].image_url",
            "missing_required_parameter",
        ),
        (
            {"role": "user", "content": [{"type": "video_url"}]},
            "messages[0].content[0].video_url",
            "missing_required_parameter",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "messages[0].content[0].image_url",
            "missing_required_parameter",
        ),
    ],
)
def test_refuses(message: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(message)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
