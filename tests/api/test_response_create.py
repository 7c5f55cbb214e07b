"""POST /v1/responses over HTTP: objects, events, translation and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, GrammarKind, Submit, TokenLogprob
from tests.api.conftest import Rig
from tests.api.fake_engine import Script, says
from tests.api.harness import MODEL, chat, picture_url

TEXT = "A red circle 🎉"
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the sky"}}\n</tool_call>'
TOOL = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}
KEYS = {
    "id",
    "object",
    "created_at",
    "status",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "model",
    "output",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "usage",
    "metadata",
}


def answers(tokenizer: Tokenizer, text: str) -> Script:
    """Says the text token by token and ends it."""
    ids = [*tokenizer.encode_text(text), tokenizer.stop_ids[0]]
    return says(*([id] for id in ids), finish=FinishReason.STOP)


def post(rig: Rig, input: Any = "Hi", **fields: Any) -> Any:
    return rig.api.client.post("/v1/responses", json={"model": MODEL, "input": input, **fields})


def events(rig: Rig, input: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    """The data of all events, whose names and numbers are checked here."""
    response = post(rig, input, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    data = []
    for frame in response.text.strip().split("\n\n"):
        first, second = frame.split("\n")
        data.append(json.loads(second.removeprefix("data: ")))
        assert first == f"event: {data[-1]['type']}"
    assert [event["sequence_number"] for event in data] == list(range(len(data)))
    return data


def types(data: list[dict[str, Any]]) -> list[str]:
    """Names of the events in order, repeated ones once."""
    names = [event["type"].removeprefix("response.") for event in data]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_the_object(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, TEXT)
    body = post(rig, metadata={"a": "b"}, temperature=0.5).json()
    assert body.keys() >= KEYS
    assert body["id"].startswith("resp_")
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", MODEL)
    assert type(body["created_at"]) is int
    (item,) = body["output"]
    assert item["id"].startswith("msg_")
    assert item == {
        "id": item["id"],
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}],
    }
    prompt_tokens = len(rig.engine.received[0].prompt)
    output_tokens = len(tokenizer.encode_text(TEXT)) + 1
    usage = body["usage"]
    assert usage["input_tokens"] == prompt_tokens
    assert usage["output_tokens"] == output_tokens
    assert usage["total_tokens"] == prompt_tokens + output_tokens
    assert usage["input_tokens_details"]["cached_tokens"] == 0
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}
    assert body["text"] == {"format": {"type": "text"}}
    assert (body["tool_choice"], body["tools"], body["store"]) == ("auto", [], True)
    assert (body["temperature"], body["top_p"]) == (0.5, 1.0)
    assert (body["error"], body["incomplete_details"]) == (None, None)
    assert body["metadata"] == {"a": "b"}


def test_the_prompt_is_that_of_the_same_chat(rig: Rig) -> None:
    rig.engine.script = says([5])
    url = picture_url()
    post(
        rig,
        [
            {"role": "user", "content": "Hi"},
            {
                "id": "msg_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": url},
                ],
            },
        ],
        instructions="Be brief.",
        seed=3,
        top_p=0.9,
        max_output_tokens=7,
    )
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        },
    ]
    rig.api.post(chat(messages=messages, seed=3, top_p=0.9, max_tokens=7))
    first, second = rig.engine.received
    assert first.prompt == second.prompt
    assert first.pictures == second.pictures != []
    assert first.submit.sampling == second.submit.sampling
    assert first.submit.max_tokens == second.submit.max_tokens == 7


def test_calls_and_their_outputs_are_those_of_a_chat(rig: Rig) -> None:
    rig.engine.script = says([5])
    post(
        rig,
        [
            {"role": "user", "content": "Look."},
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "c",
                "name": "look",
                "arguments": "{}",
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call_output", "call_id": "c", "output": "Blue."},
        ],
        tools=[TOOL],
    )
    function = {name: value for name, value in TOOL.items() if name != "type"}
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Blue."},
    ]
    rig.api.post(chat(messages=messages, tools=[{"type": "function", "function": function}]))
    first, second = rig.engine.received
    assert first.prompt == second.prompt
    assert first.submit.grammar is not None
    assert first.submit.grammar == second.submit.grammar


def test_the_length_makes_it_incomplete(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = says(tokenizer.encode_text(TEXT))
    body = post(rig, max_output_tokens=9).json()
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["max_output_tokens"] == 9
    assert body["output"][0]["status"] == "incomplete"
    last = events(rig)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"


def test_the_events_of_a_text(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, TEXT)
    data = events(rig)
    assert types(data) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    for event in data[:2]:
        assert (event["response"]["status"], event["response"]["output"]) == ("in_progress", [])
        assert event["response"]["usage"] is None
    final = data[-1]["response"]
    (item,) = final["output"]
    assert {e["response"]["id"] for e in data if "response" in e} == {final["id"]}
    assert {e["item_id"] for e in data if "item_id" in e} == {item["id"]}
    assert {e["item"]["id"] for e in data if "item" in e} == {item["id"]}
    assert {e["content_index"] for e in data if "content_index" in e} == {0}
    deltas = [e for e in data if e["type"] == "response.output_text.delta"]
    assert "".join(delta["delta"] for delta in deltas) == TEXT
    assert all(delta["logprobs"] == [] for delta in deltas)
    done = {e["type"].removeprefix("response."): e for e in data}
    assert done["output_item.added"]["item"]["status"] == "in_progress"
    assert done["output_item.added"]["item"]["content"] == []
    assert done["output_text.done"]["text"] == TEXT
    assert done["content_part.done"]["part"] == item["content"][0]
    assert done["output_item.done"]["item"] == item


def test_the_events_of_a_text_and_calls(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, f"I look.\n{CALL}\n{CALL}")
    data = events(rig, tools=[TOOL])
    of_a_call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert types(data) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        *of_a_call,
        *of_a_call,
        "completed",
    ]
    final = data[-1]["response"]
    message, *calls = final["output"]
    assert message["content"][0]["text"] == "I look."
    assert calls[0]["id"] != calls[1]["id"]
    for index, item in enumerate(final["output"]):
        own = [e for e in data if e.get("output_index") == index]
        assert {e["item_id"] for e in own if "item_id" in e} == {item["id"]}
        assert {e["item"]["id"] for e in own if "item" in e} == {item["id"]}
        assert own[-1]["item"] == item
    for index, call in enumerate(calls, start=1):
        own = [e for e in data if e.get("output_index") == index]
        assert own[0]["item"] == call | {"status": "in_progress", "arguments": ""}
        assert "".join(e["delta"] for e in own if "delta" in e) == call["arguments"]
        (done,) = (e for e in own if e["type"].endswith("arguments.done"))
        assert (done["name"], done["arguments"]) == ("look", call["arguments"])
        assert json.loads(call["arguments"]) == {"at": "the sky"}
        assert call["call_id"].startswith("call_")
    whole = post(rig, tools=[TOOL]).json()
    without_ids = [{k: v for k, v in i.items() if "id" not in k} for i in final["output"]]
    assert without_ids == [{k: v for k, v in i.items() if "id" not in k} for i in whole["output"]]


def test_without_tools_a_call_is_text(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, CALL)
    (item,) = post(rig).json()["output"]
    assert item["content"][0]["text"] == CALL


def test_an_empty_answer_is_an_empty_message(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = says([tokenizer.stop_ids[0]], finish=FinishReason.STOP)
    (item,) = post(rig).json()["output"]
    assert item["content"][0]["text"] == ""
    assert len(events(rig)[-1]["response"]["output"]) == 1


def test_logprobs_where_they_are_included(rig: Rig, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text(TEXT)

    def scored(submit: Submit) -> list[Delta]:
        assert submit.sampling.logprobs == 2
        return [
            Delta(
                submit.id,
                [id],
                FinishReason.LENGTH if n == len(ids) - 1 else None,
                logprobs=[TokenLogprob(-1.0 - n, [5, 6], [-0.5, -0.7])],
            )
            for n, id in enumerate(ids)
        ]

    rig.engine.script = scored
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    (item,) = post(rig, **fields).json()["output"]
    logprobs = item["content"][0]["logprobs"]
    assert b"".join(bytes(token["bytes"]) for token in logprobs) == TEXT.encode()
    assert [token["logprob"] for token in logprobs] == [-1.0 - n for n in range(len(ids))]
    assert [len(token["top_logprobs"]) for token in logprobs] == [2] * len(ids)
    data = events(rig, **fields)
    deltas = [e for e in data if e["type"] == "response.output_text.delta"]
    assert [token for e in deltas for token in e["logprobs"]] == logprobs
    (done,) = (e for e in data if e["type"] == "response.output_text.done")
    assert done["logprobs"] == logprobs


def test_a_schema_becomes_a_grammar(rig: Rig) -> None:
    rig.engine.script = says([5])
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    text = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    assert post(rig, text=text).json()["text"] == text
    grammar = rig.engine.received[0].submit.grammar
    assert grammar is not None
    assert grammar.kind is GrammarKind.JSON_SCHEMA
    assert "color" in grammar.text


def test_a_broken_stream_says_so(rig: Rig) -> None:
    rig.engine.script = lambda submit: [
        Delta(submit.id, [7]),
        Delta(submit.id, [], FinishReason.ERROR, error="It broke."),
    ]
    last = events(rig)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert post(rig).status_code == 500


def test_truncation_drops_the_oldest(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = says([5])
    items = [{"role": "user", "content": f"number {n} " + "x " * 60} for n in range(30)]
    refused = post(rig, items).json()["error"]
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "input")
    assert post(rig, items, truncation="auto", instructions="Be brief.").status_code == 200
    prompt = rig.engine.received[0].prompt
    text = b"".join(map(tokenizer.token_bytes, prompt)).decode()
    assert "number 29 " in text
    assert "number 0 " not in text
    assert "Be brief." in text
    one_more = len(tokenizer.encode_text(items[0]["content"])) + 10
    assert 512 - one_more < len(prompt) < 512


def test_counting(rig: Rig) -> None:
    rig.engine.script = says([5])
    content = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": picture_url(), "detail": "auto"},
    ]
    input = [{"role": "user", "content": content}]
    body = {"model": MODEL, "input": input, "tools": [TOOL], "instructions": "Look."}
    count = rig.api.client.post("/v1/responses/input_tokens", json=body).json()
    assert count["object"] == "response.input_tokens"
    usage = post(rig, input, tools=[TOOL], instructions="Look.").json()["usage"]
    assert count["input_tokens"] == usage["input_tokens"]
    assert usage["input_tokens_details"]["image_tokens"] == 4


def test_ignored_fields_are_named(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = post(
        rig,
        user="me",
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        include=[],
        tools=[],
        background=False,
    )
    assert response.headers["x-ignored-params"] == "user,reasoning,text.verbosity"
    assert response.json()["reasoning"] == {"effort": "low", "summary": None}


MESSAGE = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": 5}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"content": "Hi"}]}, "input[0].role", "missing_required_parameter"),
        ({"input": [{"role": "owl", "content": ""}]}, "input[0].role", "invalid_value"),
        ({"input": [MESSAGE, {"type": "item_reference"}]}, "input[1].type", "unsupported_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0].type",
            "unsupported_value",
        ),
        (
            {
                "instructions": "Hi",
                "input": [{"role": "user", "content": [{"type": "input_text"}]}],
            },
            "input[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://a/b.png"}],
                    }
                ]
            },
            "input[0].content[0].image_url",
            "invalid_image_url",
        ),
        (
            {"input": [MESSAGE, {"type": "function_call", "call_id": "c", "name": "f"}]},
            "input[1].arguments",
            "missing_required_parameter",
        ),
        (
            {"input": [MESSAGE, {"type": "function_call_output", "call_id": "c", "output": 5}]},
            "input[1].output",
            "invalid_type",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"max_output_tokens": 512}, "input", "context_length_exceeded"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [TOOL, {"type": "mcp"}]}, "tools[1].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice", "unsupported_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "no"}},
            "tool_choice.name",
            "invalid_value",
        ),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a"}}},
            "text.format.schema",
            "missing_required_parameter",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "owl"}}}},
            "text.format.schema",
            "invalid_schema",
        ),
        (
            {"previous_response_id": "resp_no"},
            "previous_response_id",
            "previous_response_not_found",
        ),
    ],
)
def test_what_is_refused(rig: Rig, fields: dict[str, Any], param: str, code: str) -> None:
    for stream in (False, True):
        response = post(rig, **{"input": "Hi", **fields, "stream": stream})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
    assert rig.engine.received == []


def test_another_model_does_not_exist(rig: Rig) -> None:
    assert post(rig, model="no").status_code == 404
