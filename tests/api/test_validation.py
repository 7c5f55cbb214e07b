from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from server.api.anthropic_request import MessagesRequest
from server.api.completion_request import CompletionRequest
from server.api.response_request import ResponseRequest
from server.api.schemas import ChatRequest
from server.api.validation import parse_chat
from server.errors import MESSAGE_CHARS_MAX, ApiError
from server.settings import Settings

NAMES = ("tiny", "alias/of-it")
SETTINGS = Settings(max_choices=4, max_stop_strings=3)
USER = {"role": "user", "content": "Hi"}
MANY = 20_000
NAMED: dict[str, Any] = {str(index): [] for index in range(MANY)}


def parse(**fields: Any) -> ChatRequest:
    return parse_chat({"model": "tiny", "messages": [USER], **fields}, NAMES, SETTINGS)


def rejection(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    assert len(caught.value.message) < MESSAGE_CHARS_MAX
    return caught.value


def test_smallest_request() -> None:
    request = parse()
    assert request.messages[0].content is not None
    assert request.messages[0].content[0].text == "Hi"
    assert request.n is None


def test_null_means_absent_for_every_optional_field() -> None:
    optional = [name for name, field in ChatRequest.model_fields.items() if not field.is_required()]
    assert parse(**dict.fromkeys(optional)) == parse()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1},
        {"temperature": 0.0},
        {"temperature": 2},
        {"top_p": 0},
        {"top_k": -1},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
        {"stop": "END"},
        {"stop": []},
        {"stop": ["a", "b", "c"]},
        {"n": 4},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream": None, "stream_options": None},
        {"mm_processor_kwargs": {"image_layout": "combined", "max_dynamic_patch": 6}},
        {"max_tokens": None, "max_completion_tokens": 3},
        {"model": "alias/of-it"},
    ],
)
def test_accepts(fields: dict[str, Any]) -> None:
    parse(**fields)


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"repeat_penalty": 11}, "repeat_penalty", "decimal_above_max_value", "'repeat_penalty'"),
        ({"min_new_tokens": -1}, "min_new_tokens", "integer_below_min_value", "at least 0"),
        ({"guided_regex": 5}, "guided_regex", "invalid_type", "expected a string"),
        ({"guided_choice": ["a", 5]}, "guided_choice[1]", "invalid_type", "a string"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "empty_array", "1"),
        ({"structured_outputs": "x", "regex": "a"}, "structured_outputs", "invalid_type", "object"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "decimal_above_max_value", "at most 100"),
        ({"logit_bias": [5]}, "logit_bias", "invalid_type", "an object"),
        ({"logit_bias": NAMED}, "logit_bias", "array_above_max_length", "at most 1024"),
        ({"metadata": NAMED}, "metadata", "array_above_max_length", "at most 16"),
        ({"metadata": {"a": 5}}, "metadata.a", "invalid_type", "a string"),
        (
            {"structured_outputs": {"json": 5}},
            "structured_outputs.json",
            "invalid_type",
            "a string or an object, but got an integer",
        ),
        ({"guided_json": [5]}, "guided_json", "invalid_type", "but got an array"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value", "'logprobs' is true"),
        (
            {"top_logprobs": 21, "logprobs": True},
            "top_logprobs",
            "integer_above_max_value",
            "at most 20",
        ),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "invalid_value", "'stream'"),
        ({"modalities": ["text", "audio"]}, "modalities[1]", "unsupported_value", "text only"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "'low'"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value", "'flex'"),
        ({"cache_salt": ""}, "cache_salt", "empty_string", "at least 1"),
        ({"request_id": "a b"}, "request_id", "invalid_value", "A-Z"),
        ({"tool_choice": "any"}, "tool_choice", "invalid_type", "'required'"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "invalid_value",
            "A-Z",
        ),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
            "invalid_value",
            "both",
        ),
        ({"model": None}, "model", "invalid_type", "expected a string, but got null"),
        ({"messages": "Hi"}, "messages", "invalid_type", "expected an array, but got a string"),
        ({"messages": []}, "messages", "empty_array", "at least 1"),
        ({"messages": [USER] * 2049}, "messages", "array_above_max_length", "at most 2048"),
        ({"messages": [USER, 5]}, "messages[1]", "invalid_type", "an object, but got an integer"),
        (
            {"messages": [{"content": "Hi"}]},
            "messages[0].role",
            "missing_required_parameter",
            "'messages[0].role'",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            "invalid_type",
            "a string or an array of content parts, but got an integer",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}, "x"]}]},
            "messages[0].content[1]",
            "invalid_type",
            "an object, but got a string",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type",
            "missing_required_parameter",
            "type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
            "messages[0].content[0].image_url",
            "invalid_type",
            "a string or an object with a url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
            "url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "x", "detail": "tiny"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0].image_url.detail",
            "invalid_value",
            "'auto', 'low', 'high' or 'original'",
        ),
        ({"temperature": "1"}, "temperature", "invalid_type", "a number, but got a string"),
        ({"temperature": True}, "temperature", "invalid_type", "a number, but got a boolean"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value", "at most 2, but got 2.5"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value", "at least 0"),
        ({"temperature": float("nan")}, "temperature", "invalid_type", "finite"),
        ({"top_p": 1.01}, "top_p", "decimal_above_max_value", "at most 1"),
        ({"min_p": -0.1}, "min_p", "decimal_below_min_value", "at least 0"),
        ({"top_k": -2}, "top_k", "integer_below_min_value", "at least -1"),
        ({"top_k": 1.0}, "top_k", "invalid_type", "an integer, but got a number"),
        ({"presence_penalty": 3}, "presence_penalty", "decimal_above_max_value", "at most 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "decimal_below_min_value", "-2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value", "above 0"),
        ({"seed": 2**63}, "seed", "integer_above_max_value", "9223372036854775807"),
        ({"seed": 10**100}, "seed", "integer_above_max_value", "9223372036854775807"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", "at least 1, but got 0"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens", "invalid_type", "an integer"),
        ({"n": 0}, "n", "integer_below_min_value", "at least 1"),
        ({"n": 5}, "n", "integer_above_max_value", "at most 4, but got 5"),
        ({"n": True}, "n", "invalid_type", "an integer, but got a boolean"),
        ({"stream": "true"}, "stream", "invalid_type", "a boolean, but got a string"),
        ({"stop": 5}, "stop", "invalid_type", "a string or an array of strings"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type", "a string, but got an integer"),
        ({"stop": ["a"] * 4}, "stop", "array_above_max_length", "at most 3"),
        ({"stop": ""}, "stop[0]", "empty_string", "1 to 512"),
        ({"stop": ["a", "b" * 513]}, "stop[1]", "string_above_max_length", "1 to 512"),
        ({"stop_token_ids": [1.5]}, "stop_token_ids[0]", "invalid_type", "an integer"),
        (
            {"stream_options": {"include_usage": True}},
            "stream_options",
            "invalid_value",
            "only allowed when 'stream' is true",
        ),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "invalid_type",
            "a boolean",
        ),
        (
            {"mm_processor_kwargs": {"image_layout": "mosaic"}},
            "mm_processor_kwargs.image_layout",
            "invalid_value",
            "'separate' or 'combined'",
        ),
    ],
)
def test_rejects(fields: dict[str, Any], param: str, code: str, words: str) -> None:
    error = rejection(**fields)
    assert (error.param, error.code) == (param, code)
    assert words in error.message


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat({"messages": [USER]}, NAMES, SETTINGS)
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ApiError) as caught:
        parse(model="m" * 1000)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert "m" * 64 in caught.value.message
    assert "m" * 65 not in caught.value.message


def test_a_thousand_mistakes_cost_no_more_than_one() -> None:
    """The first bad entry of a list ends its validation."""
    error = rejection(messages=[{"role": 5}] * 2000)
    assert error.param == "messages[0].role"


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest, ResponseRequest, MessagesRequest])
def test_objections_to_many_entries_are_not_collected(kind: type[BaseModel]) -> None:
    """pydantic would make an error of each."""
    values: list[Any] = [[None] * MANY, [[]] * MANY, NAMED]
    for name, field in kind.model_fields.items():
        for value in values:
            with pytest.raises(ValidationError) as caught:
                kind.model_validate({field.alias or name: value})
            assert caught.value.error_count() <= 8, name


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, {"messages": [{**USER, "tool_calls": [5] * 100}]}),
        (ResponseRequest, {"tool_choice": {"type": "allowed_tools", "tools": [5] * MANY}}),
    ],
)
def test_objections_inside_a_field_are_not_collected(
    kind: type[BaseModel], body: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() <= 8
