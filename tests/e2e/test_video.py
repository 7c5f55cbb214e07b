"""Videos through the whole daemon: the authors' answers to the frames that the model card takes."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from tests import golden
from tests.e2e.daemon import MODEL, Daemon, text_part
from tests.videos import encode, video_part

FIRST, SECOND = golden.case("video8"), golden.case("video8_round2")


@pytest.fixture(scope="module")
def video() -> dict[str, Any]:
    """A hundred frames of which the model card's rule takes exactly the authors' eight."""
    sampling = golden.video_sampling()[0]
    assert (sampling["max_frame"], sampling["bound"], sampling["num_segments"]) == (99, None, 8)
    pictures = [Image.open(golden.IMAGES / file) for file in FIRST["images"]]
    numbers = sampling["frame_indices"]
    shown = [pictures[max(k for k in range(8) if numbers[k] <= max(n, 6))] for n in range(100)]
    return video_part(encode(shown))


def ask(daemon: Daemon, case: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    answer = daemon.chat(
        messages=messages,
        temperature=0,
        max_tokens=case["max_new_tokens"],
        return_token_ids=True,
    )
    assert answer["prompt_token_ids"] == case["token_ids"]
    assert answer["choices"][0]["token_ids"] == case["generated_ids"]
    assert answer["choices"][0]["message"]["content"] == case["response"]
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 4 * 8
    return answer


def test_the_authors_answers(daemon: Daemon, video: dict[str, Any]) -> None:
    question = text_part("What is the red panda doing?")
    messages: list[dict[str, Any]] = [{"role": "user", "content": [video, question]}]
    ask(daemon, FIRST, messages)
    ask(daemon, FIRST, [{"role": "user", "content": [question, video]}])
    messages += [
        {"role": "assistant", "content": FIRST["response"]},
        {"role": "user", "content": SECOND["question"]},
    ]
    ask(daemon, SECOND, messages)


def test_a_frame_that_is_shown_twice_is_encoded_once(daemon: Daemon) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("olive", "teal", "navy")]
    part = video_part(encode([frames[n // 10] for n in range(30)]))

    def encoded() -> float:
        return daemon.gauge("internvl_images_encoded_total")

    before = encoded()
    for segments, usage in ((6, 24), (3, 12)):
        answer = daemon.chat(
            messages=[{"role": "user", "content": [part, text_part("What?")]}],
            media_io_kwargs={"video": {"num_segments": segments}},
            max_tokens=1,
        )
        assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == usage
        assert encoded() - before == 3


def test_a_damaged_video_is_the_clients_and_the_daemon_goes_on(
    daemon: Daemon, video: dict[str, Any]
) -> None:
    url = video["video_url"]["url"]
    header = "data:video/mp4;base64,"
    for wrong in (url[: len(header) + 4000], "data:video/mp4;base64,AAAAGGZ0eXBtcDQy"):
        content = [{"type": "video_url", "video_url": {"url": wrong}}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
        response = daemon.http.post("/v1/chat/completions", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "video_parse_error")
        assert error["param"] == "messages[0].content[0].video_url.url"
    assert daemon.http.get("/readyz").status_code == 200
