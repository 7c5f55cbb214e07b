"""POST /v1/responses over HTTP: objects, translation and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import GrammarKind
from tests.api.conftest import Rig
from tests.api.fake_engine import answers_all, says
from tests.api.harness import MODEL, chat, picture_url
from tests.api.responses import CALL, TEXT, TOOL, answers, post

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


def test_without_tools_a_call_is_text(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, CALL)
    (item,) = post(rig).json()["output"]
    assert item["content"][0]["text"] == CALL


def test_a_schema_becomes_a_grammar(rig: Rig) -> None:
    rig.engine.script = says([5])
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    text = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    assert post(rig, text=text).json()["text"] == text
    grammar = rig.engine.received[0].submit.grammar
    assert grammar is not None
    assert grammar.kind is GrammarKind.JSON_SCHEMA
    assert "color" in grammar.text


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


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"image_url": picture_url(), "detail": "high"}, "input.content.detail"),
        ({"image_url": picture_url(), "detail": "auto"}, None),
        (
            {"image_url": {"url": picture_url(), "detail": "original"}},
            "input.content.image_url.detail",
        ),
    ],
)
def test_a_detail_without_effect_is_named(
    rig: Rig, part: dict[str, Any], named: str | None
) -> None:
    rig.engine.script = says([5])
    input = [{"role": "user", "content": [{"type": "input_image", **part}]}]
    assert post(rig, input).headers.get("x-ignored-params") == named


def test_an_answer_that_is_sent_back_is_read_whole(rig: Rig) -> None:
    rig.engine.script = says([5])
    answer = post(rig, include=["message.output_text.logprobs"]).json()["output"]
    response = post(rig, [{"role": "user", "content": "Hi"}, *answer])
    assert response.status_code == 200, response.text
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize(
    ("include", "asked", "named"),
    [
        (None, 2, "top_logprobs"),
        (["reasoning.encrypted_content"], 2, "top_logprobs"),
        (["message.output_text.logprobs"], 2, None),
        (None, 0, None),
    ],
)
def test_likeliest_tokens_that_are_not_included_are_named(
    rig: Rig, include: list[str] | None, asked: int, named: str | None
) -> None:
    rig.engine.script = answers_all
    response = post(rig, include=include, top_logprobs=asked)
    assert response.status_code == 200, response.text
    assert response.headers.get("x-ignored-params") == named
