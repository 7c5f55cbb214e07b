"""POST /v1/responses over HTTP: the events of a stream."""

from __future__ import annotations

import json
from typing import Any

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, Submit, TokenLogprob
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.responses import CALL, TEXT, TOOL, answers, events, post, types


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


def test_logprobs_beside_a_call_are_those_of_the_text(rig: Rig, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text(f"<b> 🎉 I look.\n{CALL}")

    def scored(submit: Submit) -> list[Delta]:
        return [
            Delta(
                submit.id,
                [id],
                FinishReason.LENGTH if n == len(ids) - 1 else None,
                logprobs=[TokenLogprob(-1.0 - n, [], [])],
            )
            for n, id in enumerate(ids)
        ]

    rig.engine.script = scored
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "tools": [TOOL]}
    message, _ = post(rig, **fields).json()["output"]
    (part,) = message["content"]
    assert part["text"] == "<b> 🎉 I look."
    said = b"".join(bytes(token["bytes"]) for token in part["logprobs"])
    assert said.decode() == part["text"]
    data = events(rig, **fields)
    deltas = [e for e in data if e["type"] == "response.output_text.delta"]
    assert [token for e in deltas for token in e["logprobs"]] == part["logprobs"]
    (done,) = (e for e in data if e["type"] == "response.output_text.done")
    assert done["logprobs"] == part["logprobs"]


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
