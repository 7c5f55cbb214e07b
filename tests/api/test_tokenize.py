"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import pytest

from server.frontend.tokenizer import Tokenizer
from tests.api.conftest import Rig
from tests.api.fake_engine import READY, says
from tests.api.harness import MODEL, chat, picture_part
from tests.golden import case


def post(rig: Rig, path: str, **body: Any) -> Any:
    return rig.api.client.post(path, json=body)


def test_a_text(rig: Rig, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("A red circle 🎉")
    body = post(rig, "/tokenize", model=MODEL, prompt="A red circle 🎉").json()
    assert body == {
        "count": len(ids),
        "max_model_len": READY.max_model_len,
        "tokens": ids,
        "token_strs": None,
    }


def test_names_of_the_tokens_on_demand(rig: Rig, tokenizer: Tokenizer) -> None:
    body = post(rig, "/tokenize", prompt="A red", return_token_strs=True).json()
    assert body["token_strs"] == [tokenizer.token_name(id) for id in body["tokens"]]
    assert "".join(body["token_strs"]).replace("▁", " ").strip() == "A red"


def test_control_tokens_in_a_text_stay_text(rig: Rig, tokenizer: Tokenizer) -> None:
    text = "<|im_end|> <IMG_CONTEXT>"
    ids = post(rig, "/tokenize", prompt=text).json()["tokens"]
    assert ids == tokenizer.encode_text(text)
    assert tokenizer.control_id("<|im_end|>") not in ids


def test_a_conversation_with_pictures_is_what_the_engine_gets(rig: Rig) -> None:
    content = [picture_part(), {"type": "text", "text": "What is it?"}]
    tokens = post(rig, "/tokenize", **chat(content)).json()["tokens"]
    rig.engine.script = says([5])
    rig.api.post(chat(content))
    assert rig.engine.received[0].prompt == tokens


def test_the_authors_prompt(rig: Rig) -> None:
    golden = case("text_en")
    body = post(rig, "/tokenize", **chat(golden["question"])).json()
    assert body["tokens"] == golden["token_ids"]


def test_a_text_longer_than_the_context_is_counted(rig: Rig) -> None:
    assert post(rig, "/tokenize", prompt="x " * 20_000).json()["count"] > 10_000


@pytest.mark.parametrize("text", ["A red circle 🎉", "", " two  spaces", "<|im_end|>"])
def test_there_and_back(rig: Rig, text: str) -> None:
    ids = post(rig, "/tokenize", prompt=text).json()["tokens"]
    assert post(rig, "/detokenize", tokens=ids).json() == {"prompt": text}


def test_control_tokens_are_written_by_name(rig: Rig, tokenizer: Tokenizer) -> None:
    body = post(rig, "/detokenize", tokens=[tokenizer.control_id("<|im_end|>")]).json()
    assert body == {"prompt": "<|im_end|>"}


def test_fields_without_effect_are_named(rig: Rig) -> None:
    response = post(rig, "/tokenize", prompt="Hi", add_special_tokens=True, temperature=1)
    assert response.headers["x-ignored-params"] == "add_special_tokens,temperature"
    response = post(rig, "/detokenize", tokens=[5], unheard_of=1)
    assert response.headers["x-ignored-params"] == "unheard_of"
    assert "x-ignored-params" not in post(rig, "/tokenize", **chat()).headers


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        ("/tokenize", {}, 400, "prompt", "missing_required_parameter"),
        ("/tokenize", {"prompt": 3}, 400, "prompt", "invalid_type"),
        ("/tokenize", {"prompt": "a", "messages": []}, 400, "prompt", "missing_required_parameter"),
        ("/tokenize", {"messages": []}, 400, "messages", "empty_array"),
        ("/tokenize", {"prompt": "a", "model": "no"}, 404, "model", "model_not_found"),
        ("/tokenize", {"prompt": "x" * (2**20 + 1)}, 413, None, "request_too_large"),
        ("/detokenize", {}, 400, "tokens", "missing_required_parameter"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens[0]", "invalid_type"),
        ("/detokenize", {"tokens": [1, -1]}, 400, "tokens[1]", "invalid_value"),
        ("/detokenize", {"tokens": [2**40]}, 400, "tokens[0]", "invalid_value"),
        ("/detokenize", {"tokens": [1], "model": "no"}, 404, "model", "model_not_found"),
    ],
)
def test_what_is_refused(
    rig: Rig, *, path: str, body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    response = post(rig, path, **body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
