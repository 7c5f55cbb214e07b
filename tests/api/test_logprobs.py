from __future__ import annotations

import json
import math

from server.api.answer import ScoredToken
from server.api.logprobs import FLOOR, LogprobFormat, floored
from server.frontend.tokenizer import Tokenizer
from server.messages import TokenLogprob


def test_numbers_that_json_does_not_have() -> None:
    assert [floored(x) for x in (-0.5, -1e9, -math.inf, math.nan)] == [-0.5, FLOOR, FLOOR, FLOOR]


def test_true_bytes_of_a_part_of_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("🎉")
    assert len(ids) > 1
    scored = [ScoredToken(token_id, TokenLogprob(-1.0, [], [])) for token_id in ids]
    content = LogprobFormat(tokenizer).content(scored)
    data = b"".join(bytes(token["bytes"]) for token in content)
    assert data.decode().strip() == "🎉"
    assert content[-1] == {
        "token": "\ufffd",
        "logprob": -1.0,
        "bytes": list(tokenizer.token_bytes(ids[-1])),
        "top_logprobs": [],
    }


def test_alternatives_in_their_order(tokenizer: Tokenizer) -> None:
    scored = ScoredToken(20, TokenLogprob(-2.0, [21, 20], [-0.1, -math.inf]))
    (token,) = LogprobFormat(tokenizer).content([scored])
    assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
    names = [tokenizer.token_bytes(i).decode(errors="replace") for i in (21, 20)]
    assert [(top["token"], top["logprob"]) for top in token["top_logprobs"]] == [
        (names[0], -0.1),
        (names[1], FLOOR),
    ]
    json.dumps(token, allow_nan=False)


def test_a_control_token_has_its_name(tokenizer: Tokenizer) -> None:
    end = tokenizer.stop_ids[0]
    (token,) = LogprobFormat(tokenizer).content([ScoredToken(end, TokenLogprob(-1.0, [], []))])
    assert token["token"] == "<|im_end|>"
    assert bytes(token["bytes"]) == b"<|im_end|>"


def test_names_by_id(tokenizer: Tokenizer) -> None:
    scored = ScoredToken(20, TokenLogprob(-1.0, [21], [-0.5]))
    (token,) = LogprobFormat(tokenizer, as_ids=True).content([scored])
    assert token["token"] == "token_id:20"
    assert token["top_logprobs"][0]["token"] == "token_id:21"
    assert token["bytes"] == list(tokenizer.token_bytes(20))


def test_prompts_as_vllm_reports_them(tokenizer: Tokenizer) -> None:
    logprobs = [TokenLogprob(-3.0, [21], [-0.5]), TokenLogprob(-0.7, [22], [-0.7])]
    first, second, third = LogprobFormat(tokenizer).prompt([1, 20, 22], logprobs)
    assert first is None
    assert second is not None
    assert {key: (entry["logprob"], entry["rank"]) for key, entry in second.items()} == {
        "21": (-0.5, 1),
        "20": (-3.0, None),
    }
    assert third is not None
    assert list(third) == ["22"]
    assert third["22"]["decoded_token"] == tokenizer.token_bytes(22).decode(errors="replace")
