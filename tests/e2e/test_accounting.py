"""What an answer is said to cost is what it did cost: usage, id lists and metrics agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.daemon import MODEL, Daemon, image_part, text_part

PICTURE_TOKENS = 4
BLOCK_TOKENS = 16
QUESTION = "Please describe everything that can be seen in this image, from left to right."
ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": [image_part("rgb_tall.png"), text_part(QUESTION)]},
]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "many": {"n": 4, "temperature": 1, "seed": 3},
    "stop string": {"stop": ["e", " "], "temperature": 1, "seed": 4},
    "stop token": {"logit_bias": {"7": 100}},
    "json": {
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    },
    "tools": {"max_tokens": 100, "tools": [TOOL], "tool_choice": "required"},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "prompt_logprobs": 1},
    "text": {"messages": [{"role": "user", "content": "Hello"}]},
}


def body(mode: str) -> dict[str, Any]:
    base = {"messages": ASKED, "max_tokens": 9, "temperature": 0, "return_token_ids": True}
    return {"model": MODEL, **base, **MODES[mode]}


def check(usage: dict[str, Any], prompt_ids: list[int], ids: list[list[int]], mode: str) -> None:
    assert usage["prompt_tokens"] == len(prompt_ids)
    assert usage["completion_tokens"] == sum(map(len, ids))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    details = usage["prompt_tokens_details"]
    assert details["image_tokens"] == (0 if mode == "text" else PICTURE_TOKENS)
    assert details["image_tokens"] + details["text_tokens"] == len(prompt_ids)
    assert 0 <= details["cached_tokens"] < len(prompt_ids)


@pytest.mark.parametrize("mode", MODES)
def test_usage_adds_up_to_the_ids(daemon: Daemon, mode: str) -> None:
    before = daemon.gauge("internvl_generated_tokens_total")
    answer = daemon.chat(**body(mode))
    ids = [choice["token_ids"] for choice in answer["choices"]]
    check(answer["usage"], answer["prompt_token_ids"], ids, mode)
    daemon.wait_until_idle()
    generated = daemon.gauge("internvl_generated_tokens_total") - before
    if mode != "stop string":  # the engine goes on until it hears of one
        assert generated == answer["usage"]["completion_tokens"]
    if "logprobs" in MODES[mode]:
        assert len(answer["choices"][0]["logprobs"]["content"]) == len(ids[0])
        assert len(answer["prompt_logprobs"]) == len(answer["prompt_token_ids"])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "logprobs"])
def test_a_stream_says_the_same(daemon: Daemon, mode: str) -> None:
    sent = {**body(mode), "stream": True}
    sent["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    prompt_ids: list[int] = []
    ids: dict[int, list[int]] = {}
    usages = []
    with daemon.http.stream("POST", "/v1/chat/completions", json=sent) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usages += [chunk["usage"]] if chunk["usage"] else []
            prompt_ids += chunk.get("prompt_token_ids") or []
            for choice in chunk["choices"]:
                ids.setdefault(choice["index"], []).extend(choice.get("token_ids") or [])
    check(usages[-1], prompt_ids, list(ids.values()), mode)
    so_far = [usage["completion_tokens"] for usage in usages]
    assert so_far == sorted(so_far)
    plain = daemon.chat(**body(mode))
    assert [choice["token_ids"] for choice in plain["choices"]] == [ids[i] for i in sorted(ids)]


def test_counting_before_is_what_is_paid(daemon: Daemon) -> None:
    def count(path: str, **fields: Any) -> int:
        response = daemon.http.post(path, json={"model": MODEL, **fields})
        assert response.status_code == 200, response.text
        value = response.json()
        return int(value["count"] if "count" in value else value["input_tokens"])

    paid = daemon.chat(**body("plain"))["usage"]["prompt_tokens"]
    assert count("/v1/chat/completions/input_tokens", messages=ASKED) == paid
    assert count("/v1/responses/input_tokens", input=ASKED) == paid
    assert count("/tokenize", messages=ASKED) == paid
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        if (data := part.get("image_url", {}).get("url", "").partition(",")[2])
        else part
        for part in ASKED[0]["content"]
    ]
    messages = [{"role": "user", "content": content}]
    assert count("/v1/messages/count_tokens", messages=messages) == paid


def test_four_choices_cost_one_prefill_and_one_picture(daemon: Daemon) -> None:
    names = ("prompt_tokens", "cached_tokens", "images_encoded")
    before = [daemon.gauge(f"internvl_{name}_total") for name in names]
    answer = daemon.chat(**body("many"), cache_salt="nobody else's")
    prompt, cached, encoded = (
        daemon.gauge(f"internvl_{name}_total") - start
        for name, start in zip(names, before, strict=True)
    )
    length = answer["usage"]["prompt_tokens"]
    assert prompt == 4 * length
    assert length <= prompt - cached <= length + 3 * BLOCK_TOKENS, "what was computed"
    assert encoded <= 1
