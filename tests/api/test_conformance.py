"""Each row of the table, over HTTP: honoured fields change what the engine gets or what comes out,
ignored ones are named in a header, refused ones are a 400 with their path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from server.api.chat_parameters import CHAT
from server.api.parameters import Parameter, Support
from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason
from tests.api.conftest import Rig
from tests.api.examples import EXAMPLES, TEXT
from tests.api.exchange import Exchange
from tests.api.harness import MODEL, chat, picture_url

ROWS: dict[Support, list[Parameter]] = {
    support: [row for row in CHAT.rows if row.support is support] for support in Support
}


def test_every_honoured_row_has_its_example() -> None:
    assert set(EXAMPLES) == {row.name for row in ROWS[Support.HONOURED]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_honoured(rig: Rig, tokenizer: Tokenizer, name: str) -> None:
    fields, see, expected = EXAMPLES[name]
    seen = see(Exchange(rig, tokenizer, fields, TEXT))
    if expected is ...:
        assert seen != see(Exchange(rig, tokenizer, {}, TEXT))
    else:
        assert seen == expected


VALUES: Mapping[str, Any] = {
    "reasoning_effort": "high",
    "verbosity": "low",
    "spaces_between_special_tokens": "x",
}


def sent(name: str, value: Any) -> dict[str, Any]:
    """A request in which the field of that dotted name has a value."""
    outer, _, inner = name.partition(".")
    if not inner:
        return chat("Hi", **{name: value})
    if name == "messages.content.image_url.detail":
        return chat([{"type": "image_url", "image_url": {"url": picture_url(), "detail": "high"}}])
    if name == "messages.content.detail":
        return chat([{"type": "input_image", "image_url": picture_url(), "detail": "high"}])
    if outer == "messages":
        return {"model": MODEL, "messages": [{"role": "user", "content": "Hi", inner: value}]}
    return chat("Hi", stream=True, **{outer: {inner: value}})


@pytest.mark.parametrize("row", ROWS[Support.IGNORED], ids=lambda row: row.name)
def test_ignored(rig: Rig, row: Parameter) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [5], FinishReason.LENGTH)]
    response = rig.api.post(sent(row.name, VALUES.get(row.name, "x")))
    assert response.status_code == 200, response.text
    assert response.headers["x-ignored-params"] == row.name
    for harmless in (None, *row.neutral):
        if row.name.startswith("messages.content"):
            continue  # it has no value but the one that was sent
        response = rig.api.post(sent(row.name, harmless))
        assert response.status_code == 200, response.text
        assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize("row", ROWS[Support.REFUSED], ids=lambda row: row.name)
def test_refused(rig: Rig, row: Parameter) -> None:
    response = rig.api.post(sent(row.name, "something else"))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, row.name)
    assert error["code"] == "unsupported_parameter"
    assert row.meaning in error["message"]
    rig.engine.script = lambda submit: [Delta(submit.id, [5], FinishReason.LENGTH)]
    for harmless in (None, *row.neutral):
        assert rig.api.post(sent(row.name, harmless)).status_code == 200
    assert len(rig.engine.received) == 1 + len(row.neutral)


def test_capabilities_are_the_table(rig: Rig) -> None:
    body = rig.api.client.get("/v1/capabilities").json()
    rows = body["endpoints"]["/v1/chat/completions"]
    assert {name: row["support"] for name, row in rows.items()} == {
        row.name: row.support.value for row in CHAT.rows
    }
    assert rows["repeat_penalty"]["same_as"] == "repetition_penalty"
    assert body["limits"]["max_top_logprobs"] == 20
    assert body["limits"]["max_model_len"] == 512


def test_the_openapi_document_says_what_becomes_of_a_field(rig: Rig) -> None:
    schemas = rig.api.client.get("/openapi.json").json()["components"]["schemas"]
    properties = schemas["ChatRequest"]["properties"]
    assert properties["temperature"]["x-support"] == "honoured"
    assert properties["verbosity"]["x-support"] == "ignored"


def test_every_scalar_may_be_null(rig: Rig) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [5], FinishReason.LENGTH)]
    names = [row.name for row in CHAT.rows if "." not in row.name]
    nulls = dict.fromkeys(set(names) - {"model", "messages"})
    response = rig.api.post(chat("Hi", **nulls))
    assert response.status_code == 200, response.text
    assert "x-ignored-params" not in response.headers
