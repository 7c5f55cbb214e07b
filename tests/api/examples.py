"""What shows that each honoured field of a chat request is honoured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.messages import GrammarKind
from tests.api.exchange import Exchange
from tests.api.harness import picture_part, picture_url
from tests.videos import counted, encode, number_of, video_part

TEXT = "One fish, two"
FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
ASSISTANT = {"role": "assistant", "content": "It is"}

Seen = Callable[[Exchange], Any]


def text(exchange: Exchange) -> str:
    return exchange.text


def sampling(name: str) -> Seen:
    return lambda exchange: getattr(exchange.submit.sampling, name)


def submitted(name: str) -> Seen:
    return lambda exchange: getattr(exchange.submit, name)


def answered(*keys: str) -> Seen:
    def see(exchange: Exchange) -> Any:
        value: Any = exchange.choice if keys[0] in exchange.choice else exchange.body
        for key in keys:
            value = value[key]
        return value

    return see


def grammar(exchange: Exchange) -> Any:
    assert exchange.submit.grammar is not None
    return exchange.submit.grammar.kind


def with_usage(exchange: Exchange) -> int:
    return exchange.response.text.count('"usage":{')


def prompt_length(exchange: Exchange) -> int:
    assert exchange.ok, exchange.response.text
    return len(exchange.prompt)


STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
WITH_ASSISTANT = {"messages": [{"role": "user", "content": "Hi"}, ASSISTANT]}
NESTED = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a longer one"}]}]}
PICTURE = {"messages": [{"role": "user", "content": [picture_part()]}]}
TWO_PICTURES = {"messages": [{"role": "user", "content": [picture_part(), picture_part()]}]}
VIDEO_PART = video_part(encode(counted(100)))
VIDEO = {"messages": [{"role": "user", "content": [VIDEO_PART]}]}
CALLED = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


def frames(exchange: Exchange) -> list[int]:
    """Numbers of the frames that the engine got."""
    assert exchange.ok, exchange.response.text
    return [number_of(pixels) for pixels in exchange.received[0].pictures]


def sampled(**options: Any) -> dict[str, Any]:
    return {**VIDEO, "media_io_kwargs": {"video": options}}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", **fields}]}


# What shows that a field is honoured: the fields, what to look at, and what it is then. With `...`
# it is enough that it differs from what it is without the field.
EXAMPLES: dict[str, tuple[dict[str, Any], Seen, Any]] = {
    "temperature": ({"temperature": 0.5}, sampling("temperature"), 0.5),
    "top_p": ({"top_p": 0.5}, sampling("top_p"), 0.5),
    "top_k": ({"top_k": 5}, sampling("top_k"), 5),
    "min_p": ({"min_p": 0.1}, sampling("min_p"), 0.1),
    "presence_penalty": ({"presence_penalty": 1}, sampling("presence_penalty"), 1),
    "frequency_penalty": ({"frequency_penalty": 1}, sampling("frequency_penalty"), 1),
    "repetition_penalty": ({"repetition_penalty": 1.5}, sampling("repetition_penalty"), 1.5),
    "repeat_penalty": ({"repeat_penalty": 1.5}, sampling("repetition_penalty"), 1.5),
    "seed": ({"seed": 7}, sampling("seed"), 7),
    "logit_bias": ({"logit_bias": {"5": -100}}, sampling("logit_bias"), {5: -100}),
    "allowed_token_ids": ({"allowed_token_ids": [5]}, sampling("allowed_token_ids"), [5]),
    "bad_words": ({"bad_words": ["fish"]}, sampling("bad_words"), ...),
    "min_tokens": ({"min_tokens": 3}, sampling("min_tokens"), 3),
    "min_new_tokens": ({"min_new_tokens": 3}, sampling("min_tokens"), 3),
    "n": ({"n": 3}, lambda exchange: len(exchange.body["choices"]), 3),
    "stop": ({"stop": "fish"}, text, "One "),
    "stop_token_ids": ({"stop_token_ids": [5]}, lambda e: e.submit.stop_ids[-1], 5),
    "ignore_eos": ({"ignore_eos": True}, submitted("stop_ids"), []),
    "include_stop_str_in_output": (
        {"stop": "fish", "include_stop_str_in_output": True},
        text,
        "One fish",
    ),
    "no_stop_trim": ({"stop": "fish", "no_stop_trim": True}, text, "One fish"),
    "stream": (STREAM, lambda e: e.response.headers["content-type"].split(";")[0], ...),
    "stream_options.include_usage": (USAGE, with_usage, 1),
    "stream_options.continuous_usage_stats": (
        {
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        },
        with_usage,
        3,
    ),
    "prompt_logprobs": (
        {"prompt_logprobs": 2},
        lambda e: e.body["prompt_logprobs"][1]["5"]["logprob"],
        -0.5,
    ),
    "return_token_ids": (
        {"return_token_ids": True},
        lambda e: len(e.choice["token_ids"]) > 1,
        True,
    ),
    "return_tokens_as_token_ids": (
        {"logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True},
        lambda e: e.choice["logprobs"]["content"][0]["top_logprobs"][1]["token"],
        "token_id:6",
    ),
    "skip_special_tokens": (
        {"skip_special_tokens": False, "include_stop_str_in_output": True},
        text,
        f"{TEXT}<|im_end|>",
    ),
    "structured_outputs.json": (
        {"structured_outputs": {"json": '{"type": "object"}'}},
        grammar,
        GrammarKind.JSON_SCHEMA,
    ),
    "structured_outputs.regex": (
        {"structured_outputs": {"regex": "a"}},
        grammar,
        GrammarKind.REGEX,
    ),
    "structured_outputs.choice": (
        {"structured_outputs": {"choice": ["a", "b"]}},
        grammar,
        GrammarKind.LARK,
    ),
    "structured_outputs.grammar": (
        {"structured_outputs": {"grammar": 'start: "a"'}},
        grammar,
        GrammarKind.LARK,
    ),
    "structured_outputs.json_object": (
        {"structured_outputs": {"json_object": True}},
        grammar,
        GrammarKind.JSON_SCHEMA,
    ),
    "guided_json": ({"guided_json": {"type": "object"}}, grammar, GrammarKind.JSON_SCHEMA),
    "guided_regex": ({"guided_regex": "a"}, grammar, GrammarKind.REGEX),
    "guided_choice": ({"guided_choice": ["a"]}, grammar, GrammarKind.LARK),
    "guided_grammar": ({"guided_grammar": 'root ::= "a"'}, grammar, GrammarKind.LARK),
    "guided_json_object": ({"guided_json_object": True}, grammar, GrammarKind.JSON_SCHEMA),
    "json_schema": ({"json_schema": {"type": "object"}}, grammar, GrammarKind.JSON_SCHEMA),
    "regex": ({"regex": "a"}, grammar, GrammarKind.REGEX),
    "ebnf": ({"ebnf": 'root ::= "a"'}, grammar, GrammarKind.LARK),
    "grammar": ({"grammar": 'root ::= "a"'}, grammar, GrammarKind.LARK),
    "model": ({"model": "other"}, lambda exchange: exchange.response.status_code, 404),
    "service_tier": ({"service_tier": "flex"}, submitted("priority"), 100),
    "priority": ({"priority": -5, "service_tier": "flex"}, submitted("priority"), -5),
    "cache_salt": ({"cache_salt": "mine"}, submitted("cache_salt"), b"mine"),
    "extra_key": ({"extra_key": "mine"}, submitted("cache_salt"), b"mine"),
    "request_id": ({"request_id": "my_id"}, lambda e: e.body["id"], "chatcmpl-my_id"),
    "metadata": ({"metadata": {"a": "b"}}, lambda e: e.body["metadata"], {"a": "b"}),
    "messages": (NESTED, prompt_length, ...),
    "messages.role": (assistant(content="Hi"), prompt_length, ...),
    "messages.content": (NESTED, prompt_length, ...),
    "messages.content.type": (NESTED, prompt_length, ...),
    "messages.content.text": (NESTED, prompt_length, ...),
    "messages.content.refusal": (
        assistant(content=[{"type": "refusal", "refusal": "No."}]),
        prompt_length,
        ...,
    ),
    "messages.content.image_url": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_image", "image_url": picture_url()}]}
            ]
        },
        lambda e: len(e.submit.images),
        1,
    ),
    "messages.content.image_url.url": (PICTURE, lambda e: len(e.submit.images), 1),
    "messages.content.video_url": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "video_url", "video_url": VIDEO_PART["video_url"]["url"]}],
                }
            ]
        },
        frames,
        [6, 18, 31, 43, 56, 68, 80, 93],
    ),
    "messages.content.video_url.url": (VIDEO, frames, [6, 18, 31, 43, 56, 68, 80, 93]),
    "messages.tool_calls": (assistant(tool_calls=[CALLED]), prompt_length, ...),
    "messages.function_call": (assistant(function_call=CALLED["function"]), prompt_length, ...),
    "messages.refusal": (assistant(content=None, refusal="No."), prompt_length, ...),
    "messages.prefix": (assistant(content="It is", prefix=True), prompt_length, ...),
    "max_completion_tokens": ({"max_completion_tokens": 9}, submitted("max_tokens"), 9),
    "max_tokens": ({"max_tokens": 9}, submitted("max_tokens"), 9),
    "logprobs": ({"logprobs": True}, sampling("logprobs"), 0),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 2}, sampling("logprobs"), 2),
    "response_format": (
        {"response_format": {"type": "json_object"}},
        grammar,
        GrammarKind.JSON_SCHEMA,
    ),
    "tools": ({"tools": [TOOL]}, prompt_length, ...),
    "tool_choice": (
        {"tools": [TOOL], "tool_choice": "required"},
        lambda e: e.submit.grammar and e.submit.grammar.text.startswith('start: "<tool_call>"'),
        True,
    ),
    "parallel_tool_calls": (
        {"tools": [TOOL], "parallel_tool_calls": False},
        lambda e: e.submit.grammar and "{0,15}" in e.submit.grammar.text,
        False,
    ),
    "functions": ({"functions": [FUNCTION]}, prompt_length, ...),
    "function_call": (
        {"functions": [FUNCTION], "function_call": {"name": "f"}},
        lambda e: e.submit.grammar and e.submit.grammar.text.startswith('start: "<tool_call>"'),
        True,
    ),
    "echo": ({**WITH_ASSISTANT, "echo": True}, text, f"It is{TEXT}"),
    "add_generation_prompt": ({"add_generation_prompt": False}, prompt_length, ...),
    "continue_final_message": (
        {**WITH_ASSISTANT, "continue_final_message": True},
        prompt_length,
        ...,
    ),
    "prefix": ({**WITH_ASSISTANT, "prefix": True}, prompt_length, ...),
    "mm_processor_kwargs.image_layout": (
        {**TWO_PICTURES, "mm_processor_kwargs": {"image_layout": "combined"}},
        lambda e: (
            e.submit.images[1].offset - e.submit.images[0].offset == e.submit.images[0].length
        ),
        True,
    ),
    "media_io_kwargs.video.num_segments": (sampled(num_segments=2), frames, [24, 74]),
    "media_io_kwargs.video.num_frames": (sampled(num_frames=2), frames, [24, 74]),
    "media_io_kwargs.video.bound": (
        sampled(bound=[1, 2], num_segments=4),
        frames,
        [28, 34, 40, 47],
    ),
    "modalities": ({"modalities": ["audio"]}, lambda e: e.response.status_code, 400),
}
