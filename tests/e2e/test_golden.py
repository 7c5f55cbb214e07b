"""The answers of the authors' code, through the whole daemon."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import EXACT
from tests.e2e.conversations import all_cases, request
from tests.e2e.daemon import MODEL, Daemon, image_part, running, text_part

CASES = all_cases()


def check(answer: dict[str, Any], case: dict[str, Any]) -> None:
    assert answer["prompt_token_ids"] == case["token_ids"], case["name"]
    (choice,) = answer["choices"]
    assert choice["token_ids"] == case["generated_ids"], case["name"]
    assert choice["message"]["content"] == case["response"]
    assert choice["finish_reason"] == ("stop" if case["stopped_by"] == "eos" else "length")
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(case["token_ids"])
    assert usage["completion_tokens"] == len(case["generated_ids"])
    assert usage["prompt_tokens_details"]["image_tokens"] == 4 * len(case["images"])


def ask_all_at_once(daemon: Daemon, cases: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(len(cases)) as pool:
        answers = pool.map(lambda case: daemon.chat(**request(case)), cases)
        for answer, case in zip(answers, cases, strict=True):
            check(answer, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_alone(daemon: Daemon, case: dict[str, Any]) -> None:
    check(daemon.chat(**request(case)), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_streamed(daemon: Daemon, case: dict[str, Any]) -> None:
    text = ""
    token_ids: list[int] = []
    body = {"model": MODEL, "stream": True, **request(case)}
    with daemon.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    for chunk in map(json.loads, events):
        (choice,) = chunk["choices"]
        text += choice["delta"].get("content") or ""
        token_ids += choice.get("token_ids") or []
    assert text == case["response"]
    assert token_ids == case["generated_ids"]


def test_all_at_once(daemon: Daemon) -> None:
    ask_all_at_once(daemon, CASES)


def test_several_pictures_in_front_of_a_text_are_numbered(daemon: Daemon) -> None:
    case = next(case for case in CASES if case["name"] == "two_separate")
    pictures = [image_part(file) for file in case["images"]]
    text = text_part("Describe the two images in detail.")
    for content in ([*pictures, text], [text, *pictures]):
        body = request(case) | {"messages": [{"role": "user", "content": content}]}
        check(daemon.chat(**body), case)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--step-token-budget", "16", "--max-num-seqs", "4"), id="chunks"),
        pytest.param(("--kv-cache-blocks", "8"), id="8 blocks"),
        pytest.param(("--no-prefix-cache", "--image-cache-slots", "1"), id="no caches"),
    ],
)
def test_all_at_once_with_little_room(flags: tuple[str, ...]) -> None:
    with running(*EXACT, *flags) as daemon:
        limit = daemon.http.get(f"/v1/models/{MODEL}").json()["max_model_len"]
        cases = [case for case in CASES if len(case["token_ids"]) + case["max_new_tokens"] <= limit]
        assert len(cases) > 10
        ask_all_at_once(daemon, cases)
        daemon.wait_until_idle()
        if limit == 128:
            assert daemon.gauge("internvl_preemptions_total") > 0
