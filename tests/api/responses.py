"""Responses as the tests of `/v1/responses` ask for them, plain and as events."""

from __future__ import annotations

import json
from typing import Any

from server.frontend.tokenizer import Tokenizer
from server.messages import FinishReason
from tests.api.conftest import Rig
from tests.api.fake_engine import Script, says
from tests.api.harness import MODEL

TEXT = "A red circle 🎉"


CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the sky"}}\n</tool_call>'


TOOL = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}


def answers(tokenizer: Tokenizer, text: str) -> Script:
    """Says the text token by token and ends it."""
    ids = [*tokenizer.encode_text(text), tokenizer.stop_ids[0]]
    return says(*([id] for id in ids), finish=FinishReason.STOP)


def post(rig: Rig, input: Any = "Hi", **fields: Any) -> Any:
    return rig.api.client.post("/v1/responses", json={"model": MODEL, "input": input, **fields})


def events(rig: Rig, input: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    """The data of all events, whose names and numbers are checked here."""
    response = post(rig, input, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    data = []
    for frame in response.text.strip().split("\n\n"):
        first, second = frame.split("\n")
        data.append(json.loads(second.removeprefix("data: ")))
        assert first == f"event: {data[-1]['type']}"
    assert [event["sequence_number"] for event in data] == list(range(len(data)))
    return data


def types(data: list[dict[str, Any]]) -> list[str]:
    """Names of the events in order, repeated ones once."""
    names = [event["type"].removeprefix("response.") for event in data]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
