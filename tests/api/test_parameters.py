from __future__ import annotations

from typing import Any

import pytest

from server.api.chat_parameters import CHAT
from server.api.parameters import Parameter, Support, Table
from server.api.schemas import ChatRequest, Message, StreamOptions
from server.api.tool_schemas import StructuredOutputs
from server.api.validation import parse_chat
from server.errors import ApiError
from server.settings import Settings

TABLE = Table(
    "/x",
    (
        Parameter("good", Support.HONOURED, "Good."),
        Parameter("old", Support.HONOURED, "Old.", same_as="good"),
        Parameter("structured_outputs.regex", Support.HONOURED, "Inner."),
        Parameter("old_regex", Support.HONOURED, "Inner.", same_as="structured_outputs.regex"),
        Parameter("idle", Support.IGNORED, "Idle.", neutral=(False,)),
        Parameter("bad", Support.REFUSED, "Bad.", neutral=(1, [])),
        Parameter("messages", Support.HONOURED, "Texts."),
        Parameter("messages.name", Support.IGNORED, "Idle."),
        Parameter("messages.content", Support.HONOURED, "Texts."),
        Parameter("messages.content.idle", Support.IGNORED, "Idle.", neutral=("low",)),
        Parameter("input", Support.HONOURED, "Items."),
        Parameter("input.content.image_url", Support.HONOURED, "A picture."),
        Parameter("input.content.image_url.idle", Support.IGNORED, "Idle."),
        Parameter("input.content.idle", Support.IGNORED, "Idle.", neutral=("low",)),
    ),
)
USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("body", "refused", "ignored", "unknown"),
    [
        ({}, None, [], None),
        ({"good": 1, "old": 2}, None, [], None),
        ({"bad": 2}, "bad", [], None),
        ({"bad": 1}, None, [], None),
        ({"bad": []}, None, [], None),
        ({"bad": None, "idle": None, "new": None}, None, [], None),
        ({"bad": True}, "bad", [], None),
        ({"idle": 1, "new": 0}, None, ["idle", "new"], "new"),
        ({"idle": False}, None, [], None),
        (
            {"structured_outputs": {"regex": "a", "else": 1}},
            None,
            ["structured_outputs.else"],
            "structured_outputs.else",
        ),
        ({"messages": [{"name": "a"}, {"name": "b"}, 5]}, None, ["messages.name"], None),
        (
            {"messages": [{"content": [{"idle": "high"}, {"idle": "low"}]}]},
            None,
            ["messages.content.idle"],
            None,
        ),
        ({"input": "Hi"}, None, [], None),
        ({"input": [5, {"content": "Hi"}, {"content": [5, {"idle": "low"}]}]}, None, [], None),
        (
            {"input": [{"type": "x", "content": [{"idle": "high"}, {"idle": "low"}]}]},
            None,
            ["input.content.idle"],
            None,
        ),
        (
            {"input": [{"content": [{"image_url": {"idle": 1}, "new": 1}]}]},
            None,
            ["input.content.new", "input.content.image_url.idle"],
            "input.content.new",
        ),
        ({"a b": 1, "x" * 65: 1}, None, [], "a b"),
    ],
)
def test_what_becomes_of_a_body(
    body: dict[str, Any], refused: str | None, ignored: list[str], unknown: str | None
) -> None:
    assert TABLE.refused(body) == refused
    assert TABLE.ignored(body) == ignored
    assert TABLE.unknown(body) == unknown


def test_only_so_many_names_fit_a_header() -> None:
    assert len(TABLE.ignored({f"field{i}": 1 for i in range(1000)})) == 32


@pytest.mark.parametrize(
    ("body", "canonical", "sent"),
    [
        ({"old": 1}, {"good": 1}, {"good": "old"}),
        ({"old": 1, "good": 1}, {"good": 1}, {}),
        ({"old": 1, "good": None}, {"good": 1}, {"good": "old"}),
        ({"old": None}, {"old": None}, {}),
        (
            {"old_regex": "a"},
            {"structured_outputs": {"regex": "a"}},
            {"structured_outputs.regex": "old_regex"},
        ),
        (
            {"old_regex": "a", "structured_outputs": {"json": {}}},
            {"structured_outputs": {"json": {}, "regex": "a"}},
            {"structured_outputs.regex": "old_regex"},
        ),
        ({"old_regex": "a", "structured_outputs": 5}, {"structured_outputs": 5}, {}),
    ],
)
def test_other_names_become_the_fields_own(
    body: dict[str, Any], canonical: dict[str, Any], sent: dict[str, str]
) -> None:
    assert TABLE.canonical(body) == (canonical, sent)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"old": 1, "good": 2}, "old"),
        ({"old_regex": "a", "structured_outputs": {"regex": "b"}}, "old_regex"),
    ],
)
def test_two_values_for_one_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        TABLE.canonical(body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_two_rows_cannot_have_one_name() -> None:
    row = Parameter("a", Support.HONOURED, "A.")
    with pytest.raises(AssertionError):
        Table("/x", (row, row))


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_every_field_of_the_model_has_a_row_and_the_other_way_round() -> None:
    rows = {row.name for row in CHAT.rows if row.support is not Support.REFUSED}
    fields = set(ChatRequest.model_fields)
    assert fields <= top_level({row.name for row in CHAT.rows})
    honoured = {
        row.name for row in CHAT.rows if row.support is Support.HONOURED and not row.same_as
    }
    assert top_level(honoured) <= fields
    for prefix, model in (("stream_options", StreamOptions), ("messages", Message)):
        assert {f"{prefix}.{name}" for name in model.model_fields} <= rows
    inner = {field.alias or name for name, field in StructuredOutputs.model_fields.items()}
    assert {f"structured_outputs.{name}" for name in inner} <= rows


def test_every_other_name_leads_to_an_honoured_field() -> None:
    for row in CHAT.rows:
        if row.same_as:
            assert CHAT.by_name[row.same_as].support is Support.HONOURED


@pytest.mark.parametrize("row", CHAT.rows, ids=lambda row: row.name)
def test_every_row_has_a_sentence(row: Parameter) -> None:
    for sentence in filter(None, (row.meaning, row.differs)):
        assert sentence.endswith(".")
        assert "|" not in sentence


def parse(settings: Settings, **fields: Any) -> ChatRequest:
    return parse_chat({"model": "m", "messages": [USER], **fields}, ("m",), settings)


def test_strict_settings_refuse_what_stands_in_no_row() -> None:
    parse(Settings(), novelty=1)
    strict = Settings(strict_params=True)
    parse(strict, user="me", novelty=None)
    with pytest.raises(ApiError) as caught:
        parse(strict, novelty=1)
    assert (caught.value.param, caught.value.code) == ("novelty", "unknown_parameter")
