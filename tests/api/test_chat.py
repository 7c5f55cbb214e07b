"""POST /v1/chat/completions over HTTP: plain responses, and errors before the first byte."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason
from tests.api.conftest import Rig
from tests.api.fake_engine import says, until
from tests.api.harness import MODEL, chat, picture_part, picture_url

TEXT = "The quick brown fox."


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode_text(TEXT)


def test_shape_of_the_response(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids, cached_tokens=16)
    before = int(time.time())
    response = rig.api.post(chat("Hi"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == [
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "service_tier",
        "system_fingerprint",
    ]
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert type(body["created"]) is int
    assert before <= body["created"] <= time.time()
    assert body["model"] == MODEL
    assert body["service_tier"] == "default"
    assert body["system_fingerprint"].startswith("fp_")
    assert json.dumps(body["choices"]) == json.dumps(
        [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": TEXT,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "length",
                "stop_reason": None,
            }
        ]
    )
    prompt_tokens = len(rig.engine.received[0].prompt)
    assert body["usage"]["prompt_tokens"] == prompt_tokens
    assert body["usage"]["completion_tokens"] == len(ids)
    assert body["usage"]["total_tokens"] == prompt_tokens + len(ids)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 16


def test_ids_differ_and_the_fingerprint_does_not(rig: Rig) -> None:
    rig.engine.script = says([5])
    first, second = (rig.api.post(chat()).json() for _ in range(2))
    assert first["id"] != second["id"]
    assert first["system_fingerprint"] == second["system_fingerprint"]


def test_what_the_engine_gets(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = says([5])
    content = [picture_part(), {"type": "text", "text": "What is it?"}]
    body = rig.api.post(chat(content, max_tokens=9, seed=3, temperature=0)).json()
    (received,) = rig.engine.received
    assert received.submit.max_tokens == 9
    assert received.submit.stop_ids == list(tokenizer.stop_ids)
    assert (received.submit.sampling.seed, received.submit.sampling.temperature) == (3, 0)
    (image,) = received.submit.images
    assert len(received.pictures) == 1
    context_id = tokenizer.control_id("<IMG_CONTEXT>")
    run = received.prompt[image.offset : image.offset + image.length]
    assert run == [context_id] * image.length
    details = body["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == image.length
    assert details["text_tokens"] == len(received.prompt) - image.length


def test_without_max_tokens_the_context_is_the_limit(rig: Rig) -> None:
    rig.engine.script = says([5])
    rig.api.post(chat())
    (received,) = rig.engine.received
    assert received.submit.max_tokens == 512 - len(received.prompt)


def test_choices_are_in_order_and_draw_differently(rig: Rig, ids: list[int]) -> None:
    def backwards(submit: Any) -> list[Delta]:
        # The first choice ends last.
        choices = [r.submit for r in rig.engine.received]
        if len(choices) < 3:
            return []
        return [Delta(s.id, ids[: n + 1], FinishReason.LENGTH) for n, s in enumerate(choices)][::-1]

    rig.engine.script = backwards
    body = rig.api.post(chat(n=3, seed=10)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    lengths = [len(choice["message"]["content"]) for choice in body["choices"]]
    assert lengths == sorted(lengths)
    assert [r.submit.sampling.seed for r in rig.engine.received] == [10, 11, 12]
    assert body["usage"]["completion_tokens"] == 6


def test_token_ids_on_demand(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    end = tokenizer.stop_ids[0]
    rig.engine.script = says(ids, [end], finish=FinishReason.STOP)
    body = rig.api.post(chat(return_token_ids=True)).json()
    assert body["prompt_token_ids"] == rig.engine.received[0].prompt
    choice = body["choices"][0]
    assert choice["token_ids"] == [*ids, end]
    assert choice["message"]["content"] == TEXT
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert body["usage"]["completion_tokens"] == len(ids) + 1


def test_a_stop_string_ends_the_choice_and_frees_the_engine(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [token_id]) for token_id in ids]
    choice = rig.api.post(chat(stop=["brown", "zebra"])).json()["choices"][0]
    assert choice["message"]["content"] == "The quick "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "brown")
    assert rig.engine.wait_for_cancels() == [rig.engine.received[0].submit.id]


def test_a_stop_token_of_the_request(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids[:3], ids[3:4], finish=FinishReason.STOP)
    choice = rig.api.post(chat(stop_token_ids=[ids[3]])).json()["choices"][0]
    assert TEXT.startswith(choice["message"]["content"])
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ids[3])


def test_fields_without_effect_are_named_in_a_header(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = rig.api.post(chat(user="me", verbosity="low", unheard_of=1, store=None))
    assert response.headers["x-ignored-params"] == "user,verbosity,unheard_of"
    assert "x-ignored-params" not in rig.api.post(chat()).headers


def test_content_as_string_and_as_parts_is_the_same(rig: Rig) -> None:
    rig.engine.script = says([5])
    rig.api.post(chat("Hi"))
    rig.api.post(chat([{"type": "input_text", "text": "Hi"}]))
    first, second = rig.engine.received
    assert first.prompt == second.prompt


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (chat(model="gpt-4o"), 404, "model", "model_not_found"),
        (chat(temperature="hot"), 400, "temperature", "invalid_type"),
        (chat(tools=[{"type": "custom"}]), 400, "tools[0].type", "unsupported_value"),
        (chat("x " * 600), 400, "messages", "context_length_exceeded"),
        (chat("Hi", max_tokens=512), 400, "messages", "context_length_exceeded"),
        (
            chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
            400,
            "messages[0].content[0].image_url.url",
            "invalid_image_format",
        ),
        (
            chat([{"type": "image_url", "image_url": {"url": picture_url()[:-200]}}]),
            400,
            "messages[0].content[0].image_url.url",
            "image_parse_error",
        ),
        (
            chat([{"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}]),
            400,
            "messages[0].content[0].image_url.url",
            "invalid_image_url",
        ),
    ],
)
def test_a_bad_request_is_a_real_http_error(
    rig: Rig, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    for stream in (False, True):
        error = error_of(rig.api.post({**body, "stream": stream}), status)
        assert error["type"] == "invalid_request_error"
        assert (error["param"], error["code"]) == (param, code)
    assert rig.engine.received == []


def test_the_message_of_a_long_prompt_begins_as_openais(rig: Rig) -> None:
    error = error_of(rig.api.post(chat("x " * 600)), 400)
    assert error["message"].startswith("This model's maximum context length is 512 tokens.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b'{"model": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_json_object(rig: Rig, body: bytes) -> None:
    assert error_of(rig.api.post_raw(body), 400)["code"] == "invalid_json"


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_media_types_of_json(rig: Rig, media_type: str) -> None:
    rig.engine.script = says([5])
    body = json.dumps(chat()).encode()
    assert rig.api.post_raw(body, **{"content-type": media_type}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-encoding": "gzip"},
    ],
)
def test_other_media_types_are_refused(rig: Rig, headers: dict[str, str]) -> None:
    error = error_of(rig.api.post_raw(b"{}", **headers), 415)
    assert error["code"] == "unsupported_media_type"


def in_pieces() -> Iterator[bytes]:
    for _ in range(20):
        yield b"x" * 2**16


@pytest.mark.parametrize("body", [b"x" * (2**20 + 1), in_pieces()], ids=["declared", "chunked"])
def test_a_body_over_the_limit(rig: Rig, body: Any) -> None:
    error = error_of(rig.api.post_raw(body), 413)
    assert error["code"] == "request_too_large"
    assert str(2**20) in error["message"]
    # The server goes on, on the same connection.
    rig.engine.script = says([5])
    assert rig.api.post(chat()).status_code == 200


def test_an_error_of_the_engine_is_a_500(rig: Rig) -> None:
    rig.engine.script = lambda submit: [
        Delta(submit.id, [5]),
        Delta(submit.id, [], FinishReason.ERROR, error="The picture broke the engine."),
    ]
    response = rig.api.post(chat())
    error = error_of(response, 500)
    assert (error["type"], error["code"]) == ("server_error", "engine_error")
    assert response.headers["x-should-retry"] == "false"
    assert error["message"] == "The picture broke the engine."


def test_one_line_is_logged_per_request_and_no_text(
    rig: Rig, ids: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="server")
    rig.engine.script = says(ids, cached_tokens=2)
    response = rig.api.post(chat([{"type": "text", "text": "SECRET"}, picture_part()], n=2))
    rig.api.events(chat("SECRET"))
    rig.api.post(chat("SECRET", n=0))

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "server.access"]

    until(lambda: len(lines()) == 3)
    plain, streamed, refused = lines()
    assert plain.startswith(f"chat {response.headers['x-request-id']} 200 prompt=")
    assert f" image=4 cached=2 output={2 * len(ids)} ttft=" in plain
    assert plain.endswith(" end=length,length")
    assert streamed.endswith(" end=length")
    assert " 400 prompt=- " in refused
    assert refused.endswith(" end=integer_below_min_value")
    assert "SECRET" not in caplog.text
    assert "quick" not in caplog.text
