"""The other endpoints over the real engine: they say what chat completions say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from server.children import PATIENCE
from tests.e2e.daemon import MODEL, Daemon
from tests.golden import case

PROMPT = "The quick brown fox"
QUESTION = case("text_en")["question"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_scoring_a_text_gives_what_generating_it_gave(daemon: Daemon) -> None:
    """lm-eval's loglikelihood of a continuation that the model itself has written."""

    def complete(**fields: Any) -> Any:
        body = {"model": MODEL, "temperature": 0, "logprobs": 1, **fields}
        response = daemon.http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()["choices"]

    (written,) = complete(prompt=PROMPT, max_tokens=8, return_token_ids=True, ignore_eos=True)
    context, continuation = written["prompt_token_ids"], written["token_ids"]
    other = [*context, *continuation[:-1], (continuation[-1] + 1) % 256]
    scored, changed = complete(prompt=[[*context, *continuation], other], max_tokens=1, echo=True)
    logprobs = scored["logprobs"]["token_logprobs"][len(context) : -1]
    assert logprobs == pytest.approx(written["logprobs"]["token_logprobs"], abs=1e-4)
    likeliest = scored["logprobs"]["top_logprobs"][len(context) : -1]
    assert all(own == max(top.values()) for own, top in zip(logprobs, likeliest, strict=True))
    assert scored["logprobs"]["token_logprobs"][0] is None
    assert len(scored["logprobs"]["tokens"]) == len(context) + len(continuation) + 1
    assert changed["logprobs"]["token_logprobs"][-2] < logprobs[-1]
    (only_scored,) = complete(prompt=[*context, *continuation], max_tokens=0, echo=True)
    assert only_scored["logprobs"]["token_logprobs"][1:] == pytest.approx(
        scored["logprobs"]["token_logprobs"][1:-1], abs=1e-4
    )


def test_a_response_and_a_message_say_what_a_chat_says(
    client: openai.OpenAI, daemon: Daemon
) -> None:
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=12,
    )
    text = chat.choices[0].message.content
    events = list(
        client.responses.create(
            model=MODEL, input=QUESTION, temperature=0, max_output_tokens=12, stream=True
        )
    )
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.output_text == text
    with anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0) as other:
        message = other.messages.create(
            model=MODEL,
            max_tokens=12,
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"temperature": 0},
        )
    assert [block.text for block in message.content if block.type == "text"] == [text]


def test_a_response_goes_on_with_the_former_one(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=6)
    second = client.responses.create(
        model=MODEL,
        input="And now?",
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=6,
    )
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And now?"},
        ],
        temperature=0,
        max_tokens=6,
    )
    assert second.output_text == chat.choices[0].message.content


def test_the_api_process_runs_without_torch(daemon: Daemon) -> None:
    maps = {role: child.memory_maps() for role, child in daemon.children().items()}
    loaded = {role: any("libtorch" in m.path for m in files) for role, files in maps.items()}
    assert loaded == {"api": False, "engine": True}


def test_threads_that_compute_do_not_wait_awake_for_long(daemon: Daemon) -> None:
    environment = daemon.children()["engine"].environ()
    assert PATIENCE.items() <= environment.items()
