"""Answers that go on with a message of the client."""

from __future__ import annotations

from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL


def body(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]
    return {"model": MODEL, "messages": messages, **fields}


@pytest.fixture
def ids(rig: Rig, tokenizer: Tokenizer) -> list[int]:
    ids = tokenizer.encode_trusted("It is red")[len(tokenizer.encode_trusted("It is")) :]
    rig.engine.script = says(*([token_id] for token_id in ids))
    return ids


def text_of(rig: Rig, **fields: Any) -> str:
    text: str = rig.api.post(body(**fields)).json()["choices"][0]["message"]["content"]
    events = rig.api.events(body(**fields))[:-1]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    return text


def test_the_prompt_ends_with_the_open_message(
    rig: Rig, tokenizer: Tokenizer, ids: list[int]
) -> None:
    assert text_of(rig, continue_final_message=True) == " red"
    prompt = rig.engine.received[0].prompt
    open_message = tokenizer.encode_trusted("<|im_start|>assistant\nIt is")
    assert prompt[-len(open_message) :] == open_message
    last = {"role": "assistant", "content": "It is", "prefix": True}
    rig.api.post(body(messages=[{"role": "user", "content": "Hi"}, last]))
    assert rig.engine.received[-1].prompt == prompt


def test_echo_repeats_what_is_continued(rig: Rig, ids: list[int]) -> None:
    assert text_of(rig, continue_final_message=True, echo=True) == "It is red"


def test_echo_repeats_only_the_assistants_words(rig: Rig, ids: list[int]) -> None:
    assert text_of(rig, messages=[{"role": "user", "content": "Hi"}], echo=True) == "red"


def test_without_the_header_of_the_answer(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    rig.api.post(body(add_generation_prompt=False))
    assert rig.engine.received[0].prompt[-1] == tokenizer.control_id("<|im_end|>")
