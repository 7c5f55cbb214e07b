from __future__ import annotations

import json
from typing import Any

import pytest

from server.api.stream import ChatChunks, error_event
from server.errors import engine_restarted

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5}


def decode(frame: bytes) -> Any:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return json.loads(frame[6:])


def test_chunks_without_usage() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    assert decode(chunks.role(2)) == {
        **HEAD,
        "choices": [
            {
                "index": 2,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    assert decode(chunks.content(0, "Hi")) == {
        **HEAD,
        "choices": [
            {"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}
        ],
    }
    assert decode(chunks.finish(1, "stop", "END")) == {
        **HEAD,
        "choices": [
            {
                "index": 1,
                "delta": {},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": "END",
            }
        ],
    }


def test_chunks_with_usage_carry_null_until_there_is_one() -> None:
    chunks = ChatChunks(HEAD, include_usage=True)
    for frame in (chunks.role(0), chunks.role(0, [1]), chunks.content(0, "x")):
        assert list(decode(frame))[-1] == "usage"
        assert decode(frame)["usage"] is None
    assert decode(chunks.delta(0, {}, usage={"total_tokens": 3}))["usage"] == {"total_tokens": 3}
    assert decode(chunks.usage({"total_tokens": 3})) == {
        **HEAD,
        "choices": [],
        "usage": {"total_tokens": 3},
    }


def test_log_probabilities_stand_in_the_chunk_of_their_text() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    logprobs = {"content": [{"token": "x", "logprob": -0.5}], "refusal": None}
    for frame in (
        chunks.delta(0, {"content": "x"}, logprobs),
        chunks.finish(0, "stop", None, logprobs),
    ):
        assert decode(frame)["choices"][0]["logprobs"] == logprobs


def test_token_ids_stand_where_vllm_puts_them() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    assert decode(chunks.role(0, [1, 2]))["prompt_token_ids"] == [1, 2]
    assert decode(chunks.delta(0, {}, None, [3]))["choices"][0]["token_ids"] == [3]
    assert decode(chunks.finish(0, "stop", 3))["choices"][0]["stop_reason"] == 3


@pytest.mark.parametrize(
    "text",
    ["", 'quote " and \\', "line\nbreak\r\n\u2028", "你好 🎉", "\x00\x1f\x7f", "data: x\n\n"],
)
def test_any_text_is_one_line_of_data(text: str) -> None:
    frame = ChatChunks(HEAD, include_usage=False).content(0, text)
    assert decode(frame)["choices"][0]["delta"]["content"] == text


def test_error_event() -> None:
    assert decode(error_event(engine_restarted())) == engine_restarted().body()
