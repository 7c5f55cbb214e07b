"""POST /v1/chat/completions over HTTP: streams."""

from __future__ import annotations

from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, Submit
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, chat

TEXT = "The quick 你好 🎉 fox."


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode_text(TEXT)


def content_of(events: list[Any], index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if event != "[DONE]"
        for choice in event["choices"]
        if choice["index"] == index
    )


def test_headers(rig: Rig) -> None:
    rig.engine.script = says([5])
    with rig.api.stream(chat(user="me")) as response:
        response.read()
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-ignored-params"] == "user"
    assert response.headers["x-request-id"]


def test_chunks_from_the_role_to_the_end_mark(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(*([token_id] for token_id in ids))
    *events, end = rig.api.events(chat())
    assert end == "[DONE]"
    for event in events:
        assert list(event) == [
            "id",
            "object",
            "created",
            "model",
            "service_tier",
            "system_fingerprint",
            "choices",
        ]
        assert event["object"] == "chat.completion.chunk"
        assert (event["model"], event["service_tier"]) == (MODEL, "default")
    constant = ("id", "created", "system_fingerprint")
    assert len({tuple(event[key] for key in constant) for event in events}) == 1
    first, *middle, last = (event["choices"][0] for event in events)
    assert first == {
        "index": 0,
        "delta": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": None,
        "finish_reason": None,
    }
    for choice in middle:
        assert list(choice["delta"]) == ["content"]
        assert choice["finish_reason"] is None
    assert last == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
        "stop_reason": None,
    }
    assert content_of(events) == TEXT
    # Bytes of one character arrive together, so there are fewer chunks than tokens.
    assert len(middle) < len(ids)


def test_stream_and_plain_response_agree(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids[:3], ids[3:])
    plain = rig.api.post(chat(n=2)).json()
    events = rig.api.events(chat(n=2, stream_options={"include_usage": True}))
    for index in range(2):
        assert content_of(events, index) == plain["choices"][index]["message"]["content"]
    assert events[-2]["usage"] == plain["usage"]


def test_usage_is_null_until_the_last_chunk(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids[:2], ids[2:], cached_tokens=3)
    *events, usage, end = rig.api.events(chat(stream_options={"include_usage": True}))
    assert end == "[DONE]"
    assert all(event["usage"] is None for event in events)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(ids)
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
    assert usage["system_fingerprint"] == events[0]["system_fingerprint"]


def test_continuous_usage_counts_up(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids[:1], ids[1:2])
    options = {"include_usage": True, "continuous_usage_stats": True}
    role, *events, _ = rig.api.events(chat(stream_options=options))
    assert role["usage"] is None
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 2, 2, 2]


def test_roles_of_all_choices_come_first_and_in_order(rig: Rig, ids: list[int]) -> None:
    def last_first(_: Submit) -> list[Delta]:
        submits = [received.submit for received in rig.engine.received]
        if len(submits) < 3:
            return []
        return [Delta(submit.id, ids, FinishReason.LENGTH) for submit in reversed(submits)]

    rig.engine.script = last_first
    *events, _ = rig.api.events(chat(n=3))
    roles = [event["choices"][0] for event in events[:3]]
    assert [choice["index"] for choice in roles] == [0, 1, 2]
    assert all(choice["delta"]["role"] == "assistant" for choice in roles)
    assert all("role" not in event["choices"][0]["delta"] for event in events[3:])
    finished = [e["choices"][0]["index"] for e in events if e["choices"][0]["finish_reason"]]
    assert finished == [2, 1, 0]
    assert {content_of(events, index) for index in range(3)} == {TEXT}


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_stop_string_across_chunks_never_shows(rig: Rig, ids: list[int], width: int) -> None:
    steps = [ids[i : i + width] for i in range(0, len(ids), width)]
    rig.engine.script = lambda submit: [Delta(submit.id, step) for step in steps]
    *events, end = rig.api.events(chat(stop=["quick 你好", "fox"]))
    assert end == "[DONE]"
    assert content_of(events) == "The "
    last = events[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", "quick 你好")
    assert rig.engine.wait_for_cancels() == [rig.engine.received[0].submit.id]


def test_a_stopped_choice_does_not_stop_the_others(rig: Rig, ids: list[int]) -> None:
    def script(submit: Submit) -> list[Delta]:
        if len(rig.engine.received) == 1:
            return [Delta(submit.id, ids)]
        return [Delta(submit.id, ids[:1]), Delta(submit.id, ids[1:2], FinishReason.LENGTH)]

    rig.engine.script = script
    *events, end = rig.api.events(chat(n=2, stop="fox"))
    assert end == "[DONE]"
    ends = {e["choices"][0]["index"]: e["choices"][0]["finish_reason"] for e in events}
    assert ends == {0: "stop", 1: "length"}


def test_token_ids_on_demand(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    stop = tokenizer.stop_ids[0]
    rig.engine.script = says(*([i] for i in [*ids, stop]), finish=FinishReason.STOP)
    first, *events, _ = rig.api.events(chat(return_token_ids=True))
    assert first["prompt_token_ids"] == rig.engine.received[0].prompt
    listed = [i for event in events for i in event["choices"][0].get("token_ids", [])]
    assert listed == [*ids, stop]
    assert content_of(events) == TEXT
    assert not any("prompt_token_ids" in event for event in events)


def test_an_engine_error_before_the_first_token_is_an_http_error(rig: Rig) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [], FinishReason.ERROR, error="No.")]
    with rig.api.stream(chat()) as response:
        assert response.status_code == 500
        assert b'"engine_error"' in response.read()


def test_a_later_error_is_an_event_and_there_is_no_end_mark(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, ids[:1])]
    with rig.api.stream(chat(n=2)) as response:
        lines = response.iter_lines()
        assert response.status_code == 200
        rig.engine.wait_for_requests(2)
        rig.engine.send(
            Delta(rig.engine.received[1].submit.id, [], FinishReason.ERROR, error="Broken.")
        )
        *_, last = (line for line in lines if line)
    assert last == (
        'data: {"error":{"message":"Broken.","type":"server_error","param":null,'
        '"code":"engine_error"}}'
    )
    # The other choice is not left running.
    assert rig.engine.wait_for_cancels() == [rig.engine.received[0].submit.id]
