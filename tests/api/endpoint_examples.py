"""What shows that each honoured field is honoured, for endpoints other than chat completions.

Fields that an endpoint shares with chat are shown by chat's examples, unless their answers look
different here.
"""

from __future__ import annotations

from typing import Any

from server.messages import GrammarKind
from tests.api.examples import FUNCTION, Seen, grammar, prompt_length, sampling, submitted
from tests.api.examples import text as text_of
from tests.api.exchange import Exchange
from tests.api.harness import picture_url

Example = tuple[dict[str, Any], Seen, Any]

SCHEMA = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
PICTURE = {"type": "input_image", "image_url": picture_url()}
CALL_GRAMMAR = 'start: "<tool_call>"'


def calls_only(exchange: Exchange) -> bool:
    grammar = exchange.submit.grammar
    return grammar is not None and grammar.text.startswith(CALL_GRAMMAR)


def one_call(exchange: Exchange) -> bool:
    grammar = exchange.submit.grammar
    return grammar is not None and "{0,15}" not in grammar.text


def usages(exchange: Exchange) -> int:
    return exchange.response.text.count('"usage":{')


COMPLETIONS: dict[str, Example] = {
    "prompt": ({"prompt": [5, 6, 7]}, lambda e: e.prompt, [5, 6, 7]),
    "max_tokens": ({"max_tokens": 9}, submitted("max_tokens"), 9),
    "logprobs": ({"logprobs": 2}, lambda e: e.choice["logprobs"]["token_logprobs"][0], -0.5),
    "echo": ({"echo": True}, text_of, ...),
    "request_id": ({"request_id": "my_id"}, lambda e: e.body["id"], "cmpl-my_id"),
    "stream_options.continuous_usage_stats": (
        {
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        },
        usages,
        2,
    ),
    "return_tokens_as_token_ids": (
        {"logprobs": 2, "return_tokens_as_token_ids": True},
        lambda e: "token_id:6" in e.choice["logprobs"]["top_logprobs"][0],
        True,
    ),
}


def content(part: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "Hi"}, {"role": role, "content": [part]}]}


TOOL: dict[str, Any] = {"tools": [{"type": "function", **FUNCTION}]}
RESPONSES: dict[str, Example] = {
    "input": ({"input": [{"role": "user", "content": [PICTURE]}]}, prompt_length, ...),
    "input.content.type": (content(PICTURE), lambda e: len(e.submit.images), 1),
    "input.content.text": (content({"type": "input_text", "text": "Go on."}), prompt_length, ...),
    "input.content.refusal": (
        content({"type": "refusal", "refusal": "I cannot say."}, role="assistant"),
        prompt_length,
        ...,
    ),
    "input.content.image_url": (content(PICTURE), lambda e: len(e.submit.images), 1),
    "input.content.image_url.url": (
        content({**PICTURE, "image_url": {"url": picture_url()}}),
        lambda e: len(e.submit.images),
        1,
    ),
    "instructions": ({"instructions": "Be very, very short."}, prompt_length, ...),
    "previous_response_id": (
        {"previous_response_id": "resp_0"},
        lambda e: e.response.json().get("error", {}).get("code"),
        "previous_response_not_found",
    ),
    "store": ({"store": False}, lambda e: e.body["store"], False),
    "max_output_tokens": ({"max_output_tokens": 19}, submitted("max_tokens"), 19),
    "text.format": ({"text": {"format": SCHEMA}}, grammar, GrammarKind.JSON_SCHEMA),
    "tools": (TOOL, prompt_length, ...),
    "tool_choice": ({**TOOL, "tool_choice": "required"}, calls_only, True),
    "parallel_tool_calls": ({**TOOL, "parallel_tool_calls": False}, one_call, True),
    "include": (
        {"include": ["message.output_text.logprobs"]},
        lambda e: e.body["output"][0]["content"][0]["logprobs"][0]["logprob"],
        -0.5,
    ),
    "top_logprobs": (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        sampling("logprobs"),
        2,
    ),
    "truncation": (
        {"truncation": "auto", "input": "word " * 600},
        lambda e: e.response.status_code,
        400,  # the last item alone is too long, which no truncation helps
    ),
    "return_tokens_as_token_ids": (
        {
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "return_tokens_as_token_ids": True,
        },
        lambda e: e.body["output"][0]["content"][0]["logprobs"][0]["top_logprobs"][1]["token"],
        "token_id:6",
    ),
}


def turns(*content: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": role, "content": [*content]}]}


IMAGE = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": picture_url().partition(",")[2],
    },
}
ANTHROPIC_TOOL: dict[str, Any] = {
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "It rains."}


def used(**fields: Any) -> dict[str, Any]:
    """A conversation with a call and its result, with something of either changed."""
    use = {key: fields.get(key, value) for key, value in USE.items()}
    result = {key: fields.get(key, value) for key, value in RESULT.items()}
    return {
        **ANTHROPIC_TOOL,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ],
    }


def status(exchange: Exchange) -> int:
    return exchange.response.status_code


MESSAGES: dict[str, Example] = {
    "messages": (turns({"type": "text", "text": "Go on."}), prompt_length, ...),
    "messages.role": (turns({"type": "text", "text": "It"}, role="assistant"), prompt_length, ...),
    "messages.content": (turns({"type": "text", "text": "Go on."}), prompt_length, ...),
    "messages.content.type": (turns(IMAGE), lambda e: len(e.submit.images), 1),
    "messages.content.text": (turns({"type": "text", "text": "Go on."}), prompt_length, ...),
    "messages.content.source": (turns(IMAGE), lambda e: len(e.submit.images), 1),
    "messages.content.id": (used(id="toolu_2"), status, 400),
    "messages.content.name": (used(name="another_name"), prompt_length, ...),
    "messages.content.input": (used(input={"a": [1, 2, 3]}), prompt_length, ...),
    "messages.content.tool_use_id": (used(tool_use_id="toolu_2"), status, 400),
    "messages.content.content": (used(content="It does not rain."), prompt_length, ...),
    "system": ({"system": "Be very, very short."}, prompt_length, ...),
    "max_tokens": ({"max_tokens": 5}, submitted("max_tokens"), 5),
    "stop_sequences": ({"stop_sequences": ["fish"]}, text_of, "One "),
    "temperature": ({"temperature": 0.5}, sampling("temperature"), 0.5),
    "top_p": ({"top_p": 0.5}, sampling("top_p"), 0.5),
    "top_k": ({"top_k": 5}, sampling("top_k"), 5),
    "tools": (ANTHROPIC_TOOL, prompt_length, ...),
    "tool_choice": ({**ANTHROPIC_TOOL, "tool_choice": {"type": "any"}}, calls_only, True),
    "output_config.format": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        grammar,
        GrammarKind.JSON_SCHEMA,
    ),
}


def count(exchange: Exchange) -> int:
    assert exchange.ok, exchange.response.text
    return int(exchange.response.json()["count"])


TOKENIZE: dict[str, Example] = {
    "model": ({"model": "other"}, status, 404),
    "prompt": ({"prompt": "<|im_end|>", "messages": None}, count, ...),
    "return_token_strs": (
        {"return_token_strs": True},
        lambda e: e.response.json()["token_strs"][0],
        "<|im_start|>",
    ),
}
DETOKENIZE: dict[str, Example] = {
    "model": ({"model": "other"}, status, 404),
    "tokens": ({"tokens": [400, 401]}, lambda e: e.response.json()["prompt"], ...),
}
OWN: dict[str, dict[str, Example]] = {
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}
