"""The daemon without a model: what clients get of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from server.runner.null import TEXT
from tests.e2e.daemon import MODEL, Daemon, running

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def null_daemon() -> Iterator[Daemon]:
    # The text repeats itself, so nearly every guess is right.
    flags = ("--load-format", "null", "--max-model-len", "512", "--speculate", "ngram")
    with running(*flags, "--check-integrity") as daemon:
        yield daemon


def test_an_answer_is_the_text_as_far_as_was_asked(null_daemon: Daemon) -> None:
    answer = null_daemon.chat(messages=ASK["messages"], max_tokens=400)
    text = answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 400
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(text) > 2 * len(TEXT)
    assert text.startswith(TEXT) and text.replace(TEXT, "").lstrip() in TEXT


def test_a_stream_says_the_same(null_daemon: Daemon) -> None:
    whole = null_daemon.chat(messages=ASK["messages"], max_tokens=50)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    body = ASK | options | {"max_tokens": 50}
    pieces, usage = [], None
    with null_daemon.http.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk["usage"]
                pieces += [choice["delta"].get("content", "") for choice in chunk["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert usage == whole["usage"]


def test_guesses_change_nothing_but_the_number_of_steps(null_daemon: Daemon) -> None:
    def count(name: str) -> float:
        return null_daemon.gauge(f"internvl_{name}_total")

    tokens, confirmed, steps = map(count, ("generated_tokens", "confirmed_tokens", "steps"))
    fields: dict[str, Any] = {"messages": ASK["messages"], "max_tokens": 300}
    scored = null_daemon.chat(**fields, logprobs=True, top_logprobs=1)["choices"][0]
    pieces = [entry["token"] for entry in scored["logprobs"]["content"]]
    assert len(pieces) == 300
    assert "".join(pieces).strip() == scored["message"]["content"].strip()
    stopped = null_daemon.chat(**fields, stop="find out")["choices"][0]
    assert stopped["message"]["content"] == TEXT.partition("find out")[0]
    assert stopped["finish_reason"] == "stop"
    null_daemon.wait_until_idle()
    tokens = count("generated_tokens") - tokens
    assert count("confirmed_tokens") - confirmed > 0.5 * tokens
    assert count("steps") - steps < 0.5 * tokens


def test_who_leaves_is_forgotten(null_daemon: Daemon) -> None:
    body = ASK | {"stream": True, "max_tokens": 450}
    with null_daemon.http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())
    null_daemon.wait_until_idle()
