"""POST /v1/completions over HTTP."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pytest

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, Submit, TokenLogprob
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, decode_event

TEXT = " jumps over the dog."


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode_text(TEXT)


def post(rig: Rig, prompt: Any = "The fox", **fields: Any) -> Any:
    return rig.api.client.post("/v1/completions", json={"model": MODEL, "prompt": prompt, **fields})


def events(rig: Rig, prompt: Any = "The fox", **fields: Any) -> list[Any]:
    response = post(rig, prompt, stream=True, **fields)
    assert response.status_code == 200, response.text
    return [decode_event(line) for line in response.text.splitlines() if line]


def scored(ids: Sequence[int]) -> Callable[[Submit], list[Delta]]:
    """An engine that scores what it draws, and prompts where it is asked to: token number i has
    -i, the likeliest token beside it is 5 with -0.5."""

    def scores(count: int, begin: int) -> list[TokenLogprob]:
        return [TokenLogprob(-float(i), [5], [-0.5]) for i in range(begin, begin + count)]

    def script(submit: Submit) -> list[Delta]:
        drawn = list(ids)[: submit.max_tokens]
        prompt_tokens = len(submit.prompt) // 4
        asked = submit.prompt_logprobs is not None
        return [
            Delta(
                submit.id,
                drawn,
                FinishReason.LENGTH,
                logprobs=None if submit.sampling.logprobs is None else scores(len(drawn), 100),
                prompt_logprobs=scores(prompt_tokens - 1, 1) if asked else None,
            )
        ]

    return script


def test_shape_of_the_response(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    rig.engine.script = says(ids, cached_tokens=1)
    body = post(rig).json()
    assert list(body) == [
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "service_tier",
        "system_fingerprint",
    ]
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", MODEL)
    assert body["choices"] == [
        {
            "index": 0,
            "text": TEXT,
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]
    prompt = tokenizer.encode_text("The fox")
    (received,) = rig.engine.received
    assert received.prompt == prompt
    assert received.submit.max_tokens == 16
    assert body["usage"]["prompt_tokens"] == len(prompt)
    assert body["usage"]["completion_tokens"] == len(ids)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 1


@pytest.mark.parametrize("as_ids", [False, True])
def test_several_prompts_with_several_choices(rig: Rig, tokenizer: Tokenizer, as_ids: bool) -> None:
    texts = ["One", "Two and more"]
    prompts = [tokenizer.encode_text(text) for text in texts]

    def repeats(submit: Submit) -> list[Delta]:
        number = len(rig.engine.received)
        return [Delta(submit.id, [5] * number, FinishReason.LENGTH)]

    rig.engine.script = repeats
    body = post(rig, prompts if as_ids else texts, n=2, seed=7).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    lengths = [len(choice["text"]) for choice in body["choices"]]
    assert lengths == sorted(lengths)
    received = rig.engine.received
    assert [r.prompt for r in received] == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert [r.submit.sampling.seed for r in received] == [7, 8, 7, 8]
    assert body["usage"]["prompt_tokens"] == sum(map(len, prompts))
    assert body["usage"]["completion_tokens"] == 1 + 2 + 3 + 4


def test_words_are_read_once_for_all_choices(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    encode_text = Tokenizer.encode_text

    def reads(tokenizer: Tokenizer, text: str) -> list[int]:
        read.append(text)
        return encode_text(tokenizer, text)

    monkeypatch.setattr(Tokenizer, "encode_text", reads)
    rig.engine.script = says([5])
    assert post(rig, [[7], [8], [9]], n=2, bad_words=["fish"]).status_code == 200
    assert read == ["fish", " fish"]
    words = [received.submit.sampling.bad_words for received in rig.engine.received]
    assert len(words) == 6
    assert all(words)


def test_ids_of_all_choices_are_bounded_together(rig: Rig) -> None:
    biases = {str(id): 1 for id in range(1000)}
    allowed = list(range(1000))
    response = post(rig, [[7]] * 400, n=2, logit_bias=biases, allowed_token_ids=allowed)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "array_above_max_length"
    assert "Send fewer ids, prompts or choices." in response.json()["error"]["message"]


def test_one_prompt_of_token_ids(rig: Rig) -> None:
    rig.engine.script = says([5])
    assert post(rig, [7, 8, 9]).status_code == 200
    assert rig.engine.received[0].prompt == [7, 8, 9]


def test_control_tokens_in_a_text_stay_text_and_ids_are_taken(
    rig: Rig, tokenizer: Tokenizer
) -> None:
    rig.engine.script = says([5])
    post(rig, "<IMG_CONTEXT><|im_end|>")
    context = tokenizer.control_id("<IMG_CONTEXT>")
    assert context not in rig.engine.received[0].prompt
    post(rig, [context, context])
    assert rig.engine.received[1].prompt == [context, context]
    assert rig.engine.received[1].submit.images == []


def test_a_stop_string_ends_the_text(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [token_id]) for token_id in ids]
    choice = post(rig, stop="over").json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (" jumps ", "stop")
    assert choice["stop_reason"] == "over"
    rig.engine.wait_for_cancels()


def test_logprobs(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    rig.engine.script = scored(ids)
    logprobs = post(rig, logprobs=1, max_tokens=len(ids)).json()["choices"][0]["logprobs"]
    assert list(logprobs) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert "".join(logprobs["tokens"]) == TEXT
    assert logprobs["token_logprobs"] == [-100.0 - i for i in range(len(ids))]
    likeliest = tokenizer.token_bytes(5, keep_special=True).decode(errors="replace")
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert list(top.values()) == [-0.5, logprob]
        assert list(top)[1] == token
        assert likeliest in top or next(iter(top)).startswith("bytes:")
    starts = [len("".join(logprobs["tokens"][:i])) for i in range(len(ids))]
    assert logprobs["text_offset"] == starts
    assert rig.engine.received[0].submit.prompt_logprobs is None


def test_tokens_that_are_parts_of_a_character(rig: Rig, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("🎉")
    data = b"".join(tokenizer.token_bytes(id) for id in ids)
    assert len(ids) > 1
    rig.engine.script = scored(ids)
    choice = post(rig, logprobs=0).json()["choices"][0]
    assert choice["text"].strip() == "🎉"
    assert set(choice["logprobs"]["text_offset"]) <= {0, 1}
    spelled = [t.removeprefix("bytes:") for t in choice["logprobs"]["tokens"]]
    assert "".join(spelled).encode().decode("unicode_escape").encode("latin-1") == data


def test_echo(rig: Rig, tokenizer: Tokenizer, ids: list[int]) -> None:
    rig.engine.script = scored(ids)
    choice = post(rig, echo=True, max_tokens=len(ids)).json()["choices"][0]
    assert choice["text"] == "The fox" + TEXT
    assert choice["logprobs"] is None
    choice = post(rig, tokenizer.encode_text("The fox"), echo=True).json()["choices"][0]
    assert choice["text"].startswith("The fox jumps")


def test_control_tokens_on_demand(rig: Rig, tokenizer: Tokenizer) -> None:
    end = tokenizer.control_id("<|im_end|>")
    prompt = [end, *tokenizer.encode_text("A")]
    rig.engine.script = scored([end, *tokenizer.encode_text("B")])
    fields: dict[str, Any] = {"echo": True, "logprobs": 0, "max_tokens": 2}
    choice = post(rig, prompt, skip_special_tokens=False, **fields).json()["choices"][0]
    assert choice["text"] == "<|im_end|>A<|im_end|>B"
    assert choice["logprobs"]["text_offset"] == [0, 10, 11, 21]
    choice = post(rig, prompt, **fields).json()["choices"][0]
    assert choice["text"] == "AB"
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 1]


def test_echo_without_an_answer_is_the_prompts_logprobs(rig: Rig, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode_text("The fox jumps")
    rig.engine.script = scored([7])
    body = post(rig, "The fox jumps", echo=True, logprobs=1, max_tokens=0).json()
    assert rig.engine.received[0].submit.max_tokens == 1
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("The fox jumps", "length")
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == "The fox jumps"
    assert logprobs["token_logprobs"] == [None, *(-float(i) for i in range(1, len(prompt)))]
    assert logprobs["top_logprobs"][0] is None
    assert body["usage"]["completion_tokens"] == 0


def test_the_loglikelihood_call_of_lm_eval(rig: Rig, tokenizer: Tokenizer) -> None:
    """What lm-eval's `local-completions` sends, and how it reads the answer."""
    contexts = [tokenizer.encode_text(text) for text in ("The fox", "A red circle is")]
    continuations = [tokenizer.encode_text(text) for text in (" jumps", " round and red")]
    prompts = [c + a for c, a in zip(contexts, continuations, strict=True)]
    rig.engine.script = scored([7])
    outputs = post(
        rig, prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    ).json()
    results = []
    choices = sorted(outputs["choices"], key=lambda choice: choice["index"])
    for choice, context in zip(choices, contexts, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][len(context) : -1]
        top_logprobs = choice["logprobs"]["top_logprobs"][len(context) : -1]
        greedy = all(
            own == max(top.values()) for own, top in zip(logprobs, top_logprobs, strict=True)
        )
        results.append((sum(logprobs), greedy))
    assert results == [
        (sum(-float(i) for i in range(len(context), len(prompt))), False)
        for context, prompt in zip(contexts, prompts, strict=True)
    ]


def test_a_stream(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(*([id] for id in ids))
    *chunks, usage, done = events(rig, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == TEXT
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(ids)


def test_a_stream_says_what_the_whole_says(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = scored(ids)
    fields: dict[str, Any] = {"echo": True, "logprobs": 1, "n": 2, "max_tokens": len(ids)}
    whole = post(rig, ["The fox", "A"], **fields).json()
    *chunks, done = events(rig, ["The fox", "A"], **fields)
    assert done == "[DONE]"
    for choice in whole["choices"]:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        for name, values in choice["logprobs"].items():
            assert [value for part in parts for value in part["logprobs"][name]] == values
        assert parts[-1]["finish_reason"] == choice["finish_reason"]


def test_a_stream_that_breaks_ends_with_an_error(rig: Rig) -> None:
    rig.engine.script = lambda submit: [
        Delta(submit.id, [7]),
        Delta(submit.id, [], FinishReason.ERROR, error="It broke."),
    ]
    assert events(rig)[-1]["error"]["message"] == "It broke."


def test_ids_on_demand(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = says(ids)
    choice = post(rig, [7, 8], return_token_ids=True).json()["choices"][0]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([7, 8], ids)


def test_fields_without_effect_are_named(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = post(rig, user="me", unheard_of=1, best_of=1, suffix="")
    assert response.headers["x-ignored-params"] == "user,unheard_of"


def test_one_line_is_logged_and_no_text(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="server.access")
    rig.engine.script = says([5], [6])
    post(rig, ["SECRET", "SECRET"])
    post(rig, "SECRET", n=0)
    plain, refused = (r.getMessage() for r in caplog.records if r.name == "server.access")
    assert plain.startswith("completion ")
    assert " 200 prompt=" in plain
    assert plain.endswith(" end=length,length")
    assert refused.endswith(" end=integer_below_min_value")
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "no"}, 404, "model", "model_not_found"),
        ({"prompt": None}, 400, "prompt", "invalid_type"),
        ({"prompt": 5}, 400, "prompt", "invalid_type"),
        ({"prompt": ""}, 400, "prompt", "empty_string"),
        ({"prompt": []}, 400, "prompt", "empty_array"),
        ({"prompt": [[]]}, 400, "prompt[0]", "empty_array"),
        ({"prompt": ["a", ""]}, 400, "prompt[1]", "empty_string"),
        ({"prompt": ["a", 5]}, 400, "prompt[1]", "invalid_type"),
        ({"prompt": [5, "a"]}, 400, "prompt[1]", "invalid_type"),
        ({"prompt": [5, True]}, 400, "prompt[1]", "invalid_type"),
        ({"prompt": [[5], [6, None]]}, 400, "prompt[1][1]", "invalid_type"),
        ({"prompt": [-1]}, 400, "prompt[0]", "invalid_value"),
        ({"prompt": [[-1]]}, 400, "prompt[0][0]", "invalid_value"),
        ({"prompt": [[5], [6, 10**9]]}, 400, "prompt[1][1]", "invalid_value"),
        ({"prompt": ["a"] * 2049}, 400, "prompt", "array_above_max_length"),
        ({"prompt": ["a"] * 1025}, 400, "prompt", "array_above_max_length"),
        ({"prompt": "x " * 600}, 400, "prompt", "context_length_exceeded"),
        ({"max_tokens": 512}, 400, "prompt", "context_length_exceeded"),
        ({"max_tokens": -1}, 400, "max_tokens", "integer_below_min_value"),
        ({"logprobs": 6}, 400, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, 400, "logprobs", "invalid_type"),
        ({"suffix": "end"}, 400, "suffix", "unsupported_parameter"),
        ({"best_of": 2}, 400, "best_of", "unsupported_parameter"),
        ({"prompt_logprobs": 1}, 400, "prompt_logprobs", "unsupported_parameter"),
        ({"n": 17}, 400, "n", "integer_above_max_value"),
    ],
)
def test_what_is_refused(
    rig: Rig, *, fields: dict[str, Any], status: int, param: str, code: str
) -> None:
    body = {"model": MODEL, "prompt": "The fox", **fields}
    for stream in (False, True):
        response = rig.api.client.post("/v1/completions", json={**body, "stream": stream})
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
    assert rig.engine.received == []


def test_openais_client(rig: Rig, ids: list[int]) -> None:
    rig.engine.script = scored(ids)
    with openai.OpenAI(base_url=f"{rig.api.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.completions.create(
            model=MODEL, prompt="The fox", logprobs=1, max_tokens=len(ids)
        )
        assert whole.choices[0].text == TEXT
        assert whole.choices[0].logprobs is not None
        assert whole.choices[0].logprobs.token_logprobs is not None
        chunks = list(client.completions.create(model=MODEL, prompt=[[7, 8]], stream=True))
        assert TEXT.startswith("".join(chunk.choices[0].text for chunk in chunks))
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model=MODEL, prompt="The fox", suffix="end")
    assert refused.value.param == "suffix"
    assert json.dumps(refused.value.body)
