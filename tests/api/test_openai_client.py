"""OpenAI's own client, unmodified, against the server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from pydantic import BaseModel

from server.frontend.tokenizer import Tokenizer
from server.messages import FinishReason
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, picture_url

TEXT = "A red circle 🎉"


@pytest.fixture
def client(rig: Rig, tokenizer: Tokenizer) -> Iterator[openai.OpenAI]:
    ids = tokenizer.encode_text(TEXT)
    steps = [[token_id] for token_id in [*ids, tokenizer.stop_ids[0]]]
    rig.engine.script = says(*steps, finish=FinishReason.STOP)
    with openai.OpenAI(base_url=f"{rig.api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_plain_request_with_a_picture(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": picture_url(), "detail": "high"}},
                ],
            }
        ],
        max_completion_tokens=50,
        extra_body={"top_k": 5},
    )
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.image_tokens == 4
    assert completion._request_id


def test_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_stream_helper_with_choices_and_a_picture(client: openai.OpenAI) -> None:
    """The helper raises when roles come late, twice or out of order."""
    with client.chat.completions.stream(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": picture_url()}}],
            }
        ],
        n=3,
    ) as stream:
        for _ in stream:
            pass
        completion = stream.get_final_completion()
    assert [choice.message.role for choice in completion.choices] == ["assistant"] * 3
    assert [choice.message.content for choice in completion.choices] == [TEXT] * 3


def test_errors_have_their_class_and_their_fields(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no", messages=[{"role": "user", "content": "Hi"}])
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], temperature=9
        )
    assert bad.value.param == "temperature"
    assert "at most 2" in bad.value.message


class Person(BaseModel):
    name: str
    age: int


def test_structured_output_becomes_an_object(
    client: openai.OpenAI, rig: Rig, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode_text('{"name": "Ann", "age": 5}')
    rig.engine.script = says([*ids, tokenizer.stop_ids[0]], finish=FinishReason.STOP)
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Who?"}],
        response_format=Person,
    )
    assert completion.choices[0].message.parsed == Person(name="Ann", age=5)
    grammar = rig.engine.received[0].submit.grammar
    assert grammar is not None
    assert set(json.loads(grammar.text)["properties"]) == {"name", "age"}


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
