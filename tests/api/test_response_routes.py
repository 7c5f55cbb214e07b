"""What was stored: GET, DELETE, cancel, input items, and conversations over several responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from server.frontend.tokenizer import Tokenizer
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, chat, picture_url
from tests.api.responses import CALL, TEXT, TOOL, answers, events, post


def get(rig: Rig, path: str) -> Any:
    return rig.api.client.get(f"/v1/responses/{path}")


@pytest.fixture
def answered(rig: Rig, tokenizer: Tokenizer) -> dict[str, Any]:
    """A stored response."""
    rig.engine.script = answers(tokenizer, TEXT)
    body: dict[str, Any] = post(rig, "Hi", instructions="Be brief.").json()
    return body


def test_get(rig: Rig, answered: dict[str, Any]) -> None:
    assert get(rig, answered["id"]).json() == answered


def test_a_streamed_response_is_stored_too(rig: Rig, answered: dict[str, Any]) -> None:
    final = events(rig)[-1]["response"]
    assert get(rig, final["id"]).json() == final


def test_store_false_is_honoured(rig: Rig, answered: dict[str, Any]) -> None:
    for stream in (False, True):
        response = post(rig, store=False, stream=stream)
        id = response.text.split('"id":"')[1].partition('"')[0]
        assert id.startswith("resp_")
        assert get(rig, id).status_code == 404
        error = post(rig, previous_response_id=id).json()["error"]
        assert error["code"] == "previous_response_not_found"
    assert post(rig, store=False).json()["store"] is False


def test_delete(rig: Rig, answered: dict[str, Any]) -> None:
    path = f"/v1/responses/{answered['id']}"
    assert rig.api.client.delete(path).json() == {
        "id": answered["id"],
        "object": "response",
        "deleted": True,
    }
    for response in (rig.api.client.delete(path), rig.api.client.get(path)):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "response_not_found"


def test_cancel(rig: Rig, answered: dict[str, Any]) -> None:
    response = rig.api.client.post(f"/v1/responses/{answered['id']}/cancel")
    assert response.status_code == 400
    assert "background" in response.json()["error"]["message"]
    assert rig.api.client.post("/v1/responses/resp_no/cancel").status_code == 404


def test_a_conversation_over_three_responses(rig: Rig, answered: dict[str, Any]) -> None:
    second = post(rig, "Sure?", previous_response_id=answered["id"]).json()
    assert second["previous_response_id"] == answered["id"]
    content = [{"type": "input_image", "image_url": picture_url()}]
    post(rig, [{"role": "user", "content": content}], previous_response_id=second["id"])
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": content},
    ]
    rig.api.post(chat(messages=messages))
    # The instructions belonged to the first response alone.
    assert rig.engine.received[2].prompt == rig.engine.received[3].prompt
    assert rig.engine.received[2].pictures == rig.engine.received[3].pictures


def test_a_call_is_answered_in_the_next_response(rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, CALL)
    first = post(rig, "Look.", tools=[TOOL]).json()
    (call,) = first["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Blue."}
    post(rig, [result], previous_response_id=first["id"], tools=[TOOL])
    explicit = [{"role": "user", "content": "Look."}, call, result]
    post(rig, explicit, tools=[TOOL])
    assert rig.engine.received[1].prompt == rig.engine.received[2].prompt


def test_input_items(rig: Rig, answered: dict[str, Any]) -> None:
    second = post(rig, "Sure?", previous_response_id=answered["id"]).json()
    page = get(rig, f"{second['id']}/input_items").json()
    assert (page["object"], page["has_more"]) == ("list", False)
    newest, answer, oldest = page["data"]
    assert newest["content"] == [{"type": "input_text", "text": "Sure?"}]
    assert (newest["type"], newest["role"]) == ("message", "user")
    assert answer == answered["output"][0]
    assert oldest["content"] == [{"type": "input_text", "text": "Hi"}]
    assert (page["first_id"], page["last_id"]) == (newest["id"], oldest["id"])
    assert get(rig, f"{second['id']}/input_items").json() == page


def test_input_items_in_pages(rig: Rig, answered: dict[str, Any]) -> None:
    items = [{"role": "user", "content": f"{n}"} for n in range(5)]
    id = post(rig, items).json()["id"]
    path = f"{id}/input_items?order=asc&limit=2"
    first = get(rig, path).json()
    assert [item["content"][0]["text"] for item in first["data"]] == ["0", "1"]
    assert first["has_more"]
    last = get(rig, f"{id}/input_items?order=asc&limit=4&after={first['last_id']}").json()
    assert [item["content"][0]["text"] for item in last["data"]] == ["2", "3", "4"]
    assert not last["has_more"]


def test_what_nobody_has_checked_is_not_kept(rig: Rig, answered: dict[str, Any]) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    content = [
        {"type": "input_text", "text": "Hi", "odd": deep},
        {"type": "input_image", "image_url": {"url": picture_url(), "odd": deep}},
    ]
    item = {"role": "user", "content": content, "odd": deep, "output": [5]}
    id = post(rig, [item, {"type": "reasoning", "content": [5], "odd": deep}]).json()["id"]
    assert post(rig, "Sure?", previous_response_id=id).status_code == 200
    page = get(rig, f"{id}/input_items?order=asc").json()
    assert page["data"][0]["content"] == [
        {"type": "input_text", "text": "Hi"},
        {"type": "input_image", "image_url": picture_url()},
    ]
    assert len(page["data"]) == 1
    assert "odd" not in str(page)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", f"limit={'1' * 5000}", "order=up", "after=msg_no"],
)
def test_wrong_pages(rig: Rig, answered: dict[str, Any], query: str) -> None:
    response = get(rig, f"{answered['id']}/input_items?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == query.partition("=")[0]


def test_a_stored_stream_is_not_played_again(rig: Rig, answered: dict[str, Any]) -> None:
    assert get(rig, f"{answered['id']}?stream=true").json()["error"]["param"] == "stream"
    assert get(rig, "resp_no/input_items").status_code == 404


class Color(pydantic.BaseModel):
    color: str


@pytest.fixture
def client(rig: Rig, tokenizer: Tokenizer) -> Iterator[openai.OpenAI]:
    rig.engine.script = answers(tokenizer, TEXT)
    with openai.OpenAI(base_url=f"{rig.api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openais_client(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": picture_url(), "detail": "auto"},
                ],
            }
        ],
    )
    assert response.output_text == TEXT
    assert response.usage is not None
    assert client.responses.retrieve(response.id).output_text == TEXT
    items = client.responses.input_items.list(response.id).data
    assert [item.type for item in items] == ["message"]
    following = client.responses.create(
        model=MODEL, input="Sure?", previous_response_id=response.id
    )
    assert len(client.responses.input_items.list(following.id, limit=1, order="asc").data) == 1
    assert len(list(client.responses.input_items.list(following.id, limit=1))) == 3
    count = client.responses.input_tokens.count(model=MODEL, input="Sure?")
    assert count.input_tokens > 0
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(following.id)


def test_openais_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hi") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == TEXT


def test_openais_stream_helper_with_a_call(
    client: openai.OpenAI, rig: Rig, tokenizer: Tokenizer
) -> None:
    rig.engine.script = answers(tokenizer, f"I look. {CALL}")
    with client.responses.stream(
        model=MODEL,
        input="Hi",
        tools=[
            {
                "type": "function",
                "name": "look",
                "parameters": {
                    "type": "object",
                    "properties": {"at": {"type": "string"}},
                    "required": ["at"],
                    "additionalProperties": False,
                },
                "strict": True,
            }
        ],
    ) as stream:
        arguments = ""
        for event in stream:
            if event.type == "response.function_call_arguments.delta":
                arguments = event.snapshot
        final = stream.get_final_response()
    call = final.output[1]
    assert call.type == "function_call"
    assert call.arguments == arguments == '{"at": "the sky"}'
    assert call.parsed_arguments == {"at": "the sky"}


def test_openais_parsing_of_a_schema(client: openai.OpenAI, rig: Rig, tokenizer: Tokenizer) -> None:
    rig.engine.script = answers(tokenizer, '{"color": "red"}')
    parsed = client.responses.parse(model=MODEL, input="Hi", text_format=Color)
    assert parsed.output_parsed == Color(color="red")
    assert rig.engine.received[0].submit.grammar is not None


def test_a_failure_reaches_openais_client(client: openai.OpenAI, rig: Rig) -> None:
    rig.engine.script = says([5])
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="Hi", tools=[{"type": "web_search"}])
    assert (refused.value.param, refused.value.code) == ("tools[0].type", "unsupported_value")
