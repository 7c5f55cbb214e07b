"""Log probabilities over HTTP: each token's once, with its text, in plain responses and streams."""

from __future__ import annotations

from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, Submit, TokenLogprob
from tests.api.conftest import Rig
from tests.api.harness import chat

TEXT = "The quick 你好 🎉 fox."


@pytest.fixture
def ids(rig: Rig, tokenizer: Tokenizer) -> list[int]:
    """What the engine says, token by token, each with a log probability that tells its place."""
    ids = [*tokenizer.encode_text(TEXT), tokenizer.stop_ids[0]]

    def script(submit: Submit) -> list[Delta]:
        asked = submit.sampling.logprobs
        if asked is None:
            return [Delta(submit.id, ids, FinishReason.STOP)]
        return [
            Delta(
                submit.id,
                [token_id],
                FinishReason.STOP if place == len(ids) else None,
                logprobs=[TokenLogprob(-float(place), [token_id][:asked], [-0.5][:asked])],
            )
            for place, token_id in enumerate(ids, start=1)
        ]

    rig.engine.script = script
    return ids


def test_none_unless_asked_for(rig: Rig, ids: list[int]) -> None:
    assert rig.api.post(chat("Hi")).json()["choices"][0]["logprobs"] is None
    assert rig.api.post(chat("Hi", logprobs=False)).json()["choices"][0]["logprobs"] is None


def test_one_for_each_token(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    choice = rig.api.post(chat("Hi", logprobs=True, top_logprobs=1)).json()["choices"][0]
    assert list(choice["logprobs"]) == ["content", "refusal"]
    content = choice["logprobs"]["content"]
    assert [token["logprob"] for token in content] == [-float(i + 1) for i in range(len(ids))]
    assert all(token["top_logprobs"][0]["token"] == token["token"] for token in content)
    data = b"".join(bytes(token["bytes"]) for token in content)
    assert data.decode().strip() == TEXT + "<|im_end|>"


def chunks_of(rig: Rig, **fields: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """(text, log probabilities) of each chunk behind the role."""
    _, *events, _ = rig.api.events(chat("Hi", logprobs=True, **fields))
    choices = [event["choices"][0] for event in events]
    return [
        (
            choice["delta"].get("content") or "",
            choice["logprobs"]["content"] if choice["logprobs"] else [],
        )
        for choice in choices
    ]


def test_a_stream_has_them_with_their_text(rig: Rig, ids: list[int]) -> None:
    chunks = chunks_of(rig)
    for text, content in chunks[:-1]:
        data = b"".join(bytes(token["bytes"]) for token in content)
        assert data.decode().lstrip(" ") == text.lstrip(" ")
    assert [token["token"] for token in chunks[-1][1]] == ["<|im_end|>"]
    places = [token["logprob"] for _, content in chunks for token in content]
    assert places == [-float(i + 1) for i in range(len(ids))]


@pytest.mark.parametrize("stop", [["never there"], ["fox. And"], ["quick 你"], ["The"], ["🎉 fox"]])
def test_no_stop_string_loses_or_repeats_one(rig: Rig, ids: list[int], stop: list[str]) -> None:
    plain = rig.api.post(chat("Hi", logprobs=True, stop=stop)).json()["choices"][0]
    chunks = chunks_of(rig, stop=stop)
    assert "".join(text for text, _ in chunks) == plain["message"]["content"]
    streamed = [token for _, content in chunks for token in content]
    assert streamed == plain["logprobs"]["content"]
    assert [token["logprob"] for token in streamed] == [-float(i + 1) for i in range(len(streamed))]


def test_text_that_is_held_back_holds_its_tokens_back(rig: Rig, ids: list[int]) -> None:
    chunks = chunks_of(rig, stop=["quick 你好 🎉 cat"])
    lengths = [
        len(content) for text, content in chunks if text.lstrip().startswith("quick 你好 🎉")
    ]
    assert len(lengths) == 1
    assert lengths[0] > 3


def test_calls_of_tools_have_theirs_too(rig: Rig, ids: list[int]) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    places = [token["logprob"] for _, content in chunks_of(rig, tools=tools) for token in content]
    assert places == [-float(i + 1) for i in range(len(ids))]


def test_of_the_prompt(rig: Rig) -> None:
    def script(submit: Submit) -> list[Delta]:
        count = len(submit.prompt) // 4 - 1
        scores = [TokenLogprob(-float(place), [5], [-0.25]) for place in range(count)]
        return [Delta(submit.id, [5], FinishReason.LENGTH, prompt_logprobs=scores)]

    rig.engine.script = script
    reported = rig.api.post(chat("Hi", prompt_logprobs=1)).json()["prompt_logprobs"]
    prompt = rig.engine.received[0].prompt
    assert len(reported) == len(prompt)
    assert reported[0] is None
    for place, (token_id, entry) in enumerate(zip(prompt[1:], reported[1:], strict=True)):
        assert entry["5"]["logprob"] == -0.25
        if token_id != 5:
            assert entry[str(token_id)]["logprob"] == -float(place)
    assert "prompt_logprobs" not in rig.api.post(chat("Hi")).json()
