"""Each limit of a request is the operator's, and the error says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.api.context import bound_output
from server.errors import ApiError
from server.limits import Limits
from tests.api.conftest import Rig
from tests.api.fake_engine import FakeEngine, says
from tests.api.harness import MODEL, Background, RunningApi, chat

LIMITS: dict[str, Any] = {
    "max_messages": 3,
    "max_text_chars": 1234,
    "max_choices": 4,
    "max_output_tokens": 50,
    "max_total_output_tokens": 111,
    "max_top_logprobs": 2,
    "max_logit_biases": 1,
    "max_stop_strings": 5,
    "max_waiting_prompt_tokens": 77,
}
CHAT = chat()
HI = CHAT["messages"]
TEXT = {"model": MODEL, "prompt": "Hi"}
RESPONSE = {"model": MODEL, "input": "Hi"}
MESSAGE = {"model": MODEL, "messages": HI, "max_tokens": 51}


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    run_dir = tmp_path_factory.mktemp("run")
    with FakeEngine(run_dir) as engine, RunningApi(run_dir, **LIMITS) as api:
        api.wait_until_ready()
        yield Rig(api, engine)


@pytest.mark.parametrize(
    ("path", "body", "limit", "param"),
    [
        ("chat/completions", {**CHAT, "messages": HI * 4}, 3, "messages"),
        ("chat/completions", chat("x" * 1235), 1234, "messages"),
        ("completions", {**TEXT, "prompt": "x" * 1235}, 1234, "prompt"),
        ("chat/completions", {**CHAT, "n": 5}, 4, "n"),
        ("chat/completions", {**CHAT, "max_tokens": 51}, 50, "max_tokens"),
        ("chat/completions", {**CHAT, "max_completion_tokens": 51}, 50, "max_completion_tokens"),
        ("chat/completions", {**CHAT, "max_tokens": 40, "n": 3}, 111, "max_tokens"),
        ("completions", {**TEXT, "max_tokens": 51}, 50, "max_tokens"),
        ("completions", {**TEXT, "prompt": ["a", "b"], "n": 4}, 111, "max_tokens"),
        ("responses", {**RESPONSE, "max_output_tokens": 51}, 50, "max_output_tokens"),
        # What another endpoint calls so is not this one's field.
        (
            "responses",
            {**RESPONSE, "logprobs": [], "max_output_tokens": 51},
            50,
            "max_output_tokens",
        ),
        ("messages", MESSAGE, 50, "max_tokens"),
        ("chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 3}, 2, "top_logprobs"),
        ("chat/completions", {**CHAT, "prompt_logprobs": 3}, 2, "prompt_logprobs"),
        ("completions", {**TEXT, "logprobs": 3}, 2, "logprobs"),
        ("responses", {**RESPONSE, "top_logprobs": 3}, 2, "top_logprobs"),
        ("chat/completions", {**CHAT, "logit_bias": {"1": 1, "2": 1}}, 1, "logit_bias"),
        ("chat/completions", {**CHAT, "stop": ["a"] * 6}, 5, "stop"),
    ],
)
def test_an_error_names_field_and_limit(
    rig: Rig, path: str, body: dict[str, Any], limit: int, param: str
) -> None:
    response = rig.api.client.post(f"/v1/{path}", json=body)
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert str(limit) in error["message"]
    assert path == "messages" or error["param"] == param
    assert rig.engine.received == []


@pytest.mark.parametrize(("choices", "tokens"), [(1, 50), (3, 37)])
def test_who_does_not_say_gets_what_is_allowed(rig: Rig, choices: int, tokens: int) -> None:
    rig.engine.script = says([5])
    assert rig.api.post({**CHAT, "n": choices}).status_code == 200
    assert {received.submit.max_tokens for received in rig.engine.received} == {tokens}


def test_one_token_each_is_the_least() -> None:
    limits = Limits(max_total_output_tokens=2)
    assert bound_output(limits, None, 100, 5, "x") == 1
    with pytest.raises(ApiError, match="at most 2 tokens in all answers, but got 3 answers of 1"):
        bound_output(limits, 1, 100, 3, "x")


def test_prompts_that_wait_are_counted_by_their_tokens(rig: Rig) -> None:
    body = chat("word " * 30, n=3)
    with Background(rig.api, body) as first:
        received = rig.engine.wait_for_requests(3)
        refused = rig.api.post(body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
        assert "77" in error["message"]
        assert refused.headers["retry-after"]
        for one in received:
            rig.engine.send(*says([5])(one.submit))
        assert first.response().status_code == 200
    rig.engine.script = says([5])
    assert rig.api.post(body).status_code == 200
