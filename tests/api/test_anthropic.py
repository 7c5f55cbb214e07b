"""POST /v1/messages and count_tokens: Anthropic's shape, and its own client unmodified."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from server.api.anthropic_items import chat_body
from server.api.anthropic_request import BLOCKS_MAX, CountRequest
from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, chat, picture_url
from tests.api.responses import CALL, TEXT, answers
from tests.golden import IMAGES

TOOL = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
CHAT_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": TOOL["input_schema"],
    },
}
PICTURE = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode((IMAGES / "rgb_square.png").read_bytes()).decode(),
    },
}
USER = {"role": "user", "content": "Hi"}


def post(rig: Rig, content: Any = "Hi", path: str = "", **fields: Any) -> Any:
    body = {"model": MODEL, "max_tokens": 99, "messages": [{"role": "user", "content": content}]}
    return rig.api.client.post(f"/v1/messages{path}", json={**body, **fields})


def events(rig: Rig, content: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    """The data of all events, whose names are checked here."""
    response = post(rig, content, stream=True, **fields)
    assert response.status_code == 200, response.text
    data = []
    for frame in response.text.strip().split("\n\n"):
        first, second = frame.split("\n")
        data.append(json.loads(second.removeprefix("data: ")))
        assert first == f"event: {data[-1]['type']}"
    return data


def types(data: list[dict[str, Any]]) -> list[str]:
    names = [event["type"] for event in data]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_the_message(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, TEXT)
    response = post(rig)
    body = response.json()
    assert body["id"].startswith("msg_")
    prompt_tokens = len(rig.engine.received[0].prompt)
    assert body == {
        "id": body["id"],
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(tokenizer.encode_text(TEXT)) + 1,
        },
    }
    assert response.headers["request-id"] == response.headers["x-request-id"]
    assert rig.engine.received[0].submit.max_tokens == 99


def test_cached_tokens_are_counted_apart(rig: Rig) -> None:
    rig.engine.script = says([5], cached_tokens=3)
    usage = post(rig).json()["usage"]
    assert usage["cache_read_input_tokens"] == 3
    assert usage["input_tokens"] == len(rig.engine.received[0].prompt) - 3


def test_the_prompt_is_that_of_the_same_chat(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = post(
        rig,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "the sky"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "text", "text": "Blue."}, PICTURE],
                    },
                    {"type": "text", "text": "And now?"},
                    PICTURE,
                ],
            },
        ],
        temperature=0,
        top_k=3,
        stop_sequences=["END"],
    )
    assert response.status_code == 200, response.text
    call = {
        "id": "t",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at":"the sky"}'},
    }
    picture = {"type": "image_url", "image_url": {"url": picture_url()}}
    messages = [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {
            "role": "tool",
            "tool_call_id": "t",
            "content": [{"type": "text", "text": "Blue."}, picture],
        },
        {"role": "user", "content": [{"type": "text", "text": "And now?"}, picture]},
    ]
    rig.api.post(chat(messages=messages, temperature=0, top_k=3))
    first, second = rig.engine.received
    assert first.prompt == second.prompt
    assert len(first.pictures) == 2
    assert first.pictures == second.pictures
    assert (first.submit.sampling.temperature, first.submit.sampling.top_k) == (0, 3)


def test_a_last_message_of_the_assistant_is_continued(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, " red circle")
    messages = [USER, {"role": "assistant", "content": "A"}]
    body = post(rig, messages=messages).json()
    assert body["content"] == [{"type": "text", "text": " red circle"}]
    rig.api.post(chat(messages=messages, continue_final_message=True))
    assert rig.engine.received[0].prompt == rig.engine.received[1].prompt


def test_why_it_ended(rig: Rig, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("one two three")
    rig.engine.script = says(ids)
    assert post(rig).json()["stop_reason"] == "max_tokens"
    rig.engine.script = lambda submit: [Delta(submit.id, [id]) for id in ids]
    body = post(rig, stop_sequences=["two"]).json()
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "two")
    assert body["content"][0]["text"] == "one "


def test_the_events_of_a_text(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, TEXT)
    data = events(rig)
    assert types(data) == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = data[0]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] == len(rig.engine.received[0].prompt)
    assert data[2] == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    deltas = [e["delta"] for e in data if e["type"] == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"text_delta"}
    assert "".join(delta["text"] for delta in deltas) == TEXT
    assert data[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert data[-2]["usage"]["output_tokens"] == len(tokenizer.encode_text(TEXT)) + 1


def test_a_text_and_a_call(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, f"I look.\n{CALL}")
    body = post(rig, tools=[TOOL]).json()
    text, call = body["content"]
    assert text == {"type": "text", "text": "I look."}
    assert call["id"].startswith("toolu_")
    assert call == {
        "type": "tool_use",
        "id": call["id"],
        "name": "look",
        "input": {"at": "the sky"},
    }
    assert body["stop_reason"] == "tool_use"
    data = events(rig, tools=[TOOL])
    begins = [e["content_block"] for e in data if e["type"] == "content_block_start"]
    assert [begin["type"] for begin in begins] == ["text", "tool_use"]
    assert begins[1]["input"] == {}
    pieces = [e["delta"] for e in data if e.get("index") == 1 and "delta" in e]
    assert json.loads("".join(piece["partial_json"] for piece in pieces)) == {"at": "the sky"}
    assert data[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("choice", "chat_choice"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, None),
    ],
)
def test_choices_of_tools(rig: Rig, choice: Any, chat_choice: Any) -> None:
    rig.engine.script = says([5])
    post(rig, tools=[TOOL], tool_choice=choice)
    same = {"tool_choice": chat_choice} if chat_choice else {"parallel_tool_calls": False}
    rig.api.post(chat(tools=[CHAT_TOOL], **same))
    first, second = rig.engine.received
    assert first.prompt == second.prompt
    assert first.submit.grammar == second.submit.grammar


def test_a_schema_for_the_answer(rig: Rig) -> None:
    rig.engine.script = says([5])
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    post(rig, output_config={"format": {"type": "json_schema", "schema": schema}})
    grammar = rig.engine.received[0].submit.grammar
    assert grammar is not None
    assert "color" in grammar.text


def test_counting(rig: Rig) -> None:
    rig.engine.script = says([5])
    content = [{"type": "text", "text": "What is it?"}, PICTURE]
    body = {"messages": [{"role": "user", "content": content}], "model": MODEL, "tools": [TOOL]}
    count = rig.api.client.post("/v1/messages/count_tokens", json=body).json()
    assert count == {
        "input_tokens": post(rig, content, tools=[TOOL]).json()["usage"]["input_tokens"]
    }


def test_a_broken_stream_says_so(rig: Rig) -> None:
    rig.engine.script = lambda submit: [
        Delta(submit.id, [7]),
        Delta(submit.id, [], FinishReason.ERROR, error="It broke."),
    ]
    last = events(rig)[-1]
    assert last["type"] == "error"
    assert last["error"] == {"type": "api_error", "message": "It broke."}


def test_ignored_fields_are_named(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = post(
        rig,
        [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        metadata={"user_id": "me"},
        unheard_of=1,
    )
    assert response.headers["x-ignored-params"] == (
        "thinking,metadata,unheard_of,messages.content.cache_control"
    )
    assert "x-ignored-params" not in post(rig, PICTURE["type"]).headers


@pytest.mark.parametrize(
    ("fields", "status", "kind", "path"),
    [
        ({"model": "no"}, 404, "not_found_error", "model"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": 999}, 400, "invalid_request_error", "maximum context length"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        (
            {"messages": [{"role": "system", "content": "Hi"}]},
            400,
            "invalid_request_error",
            "messages[0].role",
        ),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "document"}]}]},
            400,
            "invalid_request_error",
            "messages[1].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            400,
            "invalid_request_error",
            "messages[0].content[0].tool_use_id",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, 400, None, "built-in tools"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]},
                ]
            },
            400,
            "invalid_request_error",
            "messages[0].content[0].tool_use_id",
        ),
        ({"tools": [{"name": "a b"}]}, 400, "invalid_request_error", "tools[0].name"),
        (
            {"tools": [TOOL, {"name": "f", "input_schema": {"type": "string"}}]},
            400,
            None,
            "'type' at '#' is not 'object'",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "no"}},
            400,
            None,
            "tool_choice",
        ),
        ({"mcp_servers": [{"url": "x"}]}, 400, None, "mcp_servers"),
        ({"stop_sequences": [""]}, 400, None, "'stop_sequences'"),
    ],
)
def test_what_is_refused(
    rig: Rig, fields: dict[str, Any], status: int, kind: str | None, path: str
) -> None:
    for stream in (False, True):
        response = post(rig, **{**fields, "stream": stream})
        assert response.status_code == status, response.text
        body = response.json()
        assert list(body) == ["type", "error", "request_id"]
        assert body["type"] == "error"
        assert body["error"]["type"] == (kind or "invalid_request_error")
        assert path in body["error"]["message"]
    assert rig.engine.received == []


def test_many_results_of_many_calls_cost_no_more_than_each_alone() -> None:
    calls = [
        {"type": "tool_use", "id": f"t{index}", "name": "look"} for index in range(3 * BLOCKS_MAX)
    ]
    results = [{"type": "tool_result", "tool_use_id": call["id"]} for call in calls]
    messages = [
        {"role": role, "content": blocks[begin : begin + BLOCKS_MAX]}
        for role, blocks in (("assistant", calls), ("user", results))
        for begin in range(0, len(blocks), BLOCKS_MAX)
    ]
    request = CountRequest.model_validate({"model": MODEL, "messages": messages})
    began_s = time.thread_time()
    chat = chat_body(request)
    assert time.thread_time() - began_s < 2
    assert [message.get("tool_call_id") for message in chat.messages[3:]] == [
        call["id"] for call in calls
    ]


def test_a_body_that_is_no_json_gets_the_same_shape(rig: Rig) -> None:
    headers = {"content-type": "application/json"}
    response = rig.api.client.post("/v1/messages", content=b"{", headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    large = rig.api.client.post("/v1/messages", content=b"x" * (2**20 + 1), headers=headers)
    assert large.status_code == 413
    assert large.json()["error"]["type"] == "request_too_large"


@pytest.fixture
def client(rig: Rig, tokenizer: Tokenizer) -> Iterator[anthropic.Anthropic]:
    rig.engine.script = answers(tokenizer, f"I look. {CALL}")
    with anthropic.Anthropic(base_url=rig.api.url, api_key="none", max_retries=0) as client:
        yield client


def test_anthropics_client(client: anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": [PICTURE, {"type": "text", "text": "?"}]}]
    tools: list[Any] = [TOOL]
    whole = client.messages.create(model=MODEL, max_tokens=99, messages=messages, tools=tools)
    assert [block.type for block in whole.content] == ["text", "tool_use"]
    with client.messages.stream(
        model=MODEL, max_tokens=99, messages=messages, tools=tools
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "I look."
    call = final.content[1]
    assert call.type == "tool_use"
    assert call.input == {"at": "the sky"}
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", whole.usage.output_tokens)
    count = client.messages.count_tokens(model=MODEL, messages=messages, tools=tools)
    assert count.input_tokens == whole.usage.input_tokens
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="no", max_tokens=9, messages=messages)
    assert missing.value.request_id
