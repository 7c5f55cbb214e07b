from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.daemon import Daemon, image_part, text_part

QUESTION = "Please describe everything that can be seen in this image, from left to right."


def ask(daemon: Daemon, picture: str, **more: Any) -> dict[str, Any]:
    content = [image_part(picture), text_part(QUESTION)]
    return daemon.chat(
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=8,
        return_token_ids=True,
        **more,
    )


def cached(answer: dict[str, Any]) -> int:
    count: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return count


def test_the_same_picture_is_shared_and_another_one_never(daemon: Daemon) -> None:
    first = ask(daemon, "frame2.png")
    encoded = daemon.gauge("internvl_images_encoded_total")
    again = ask(daemon, "frame2.png")
    assert daemon.gauge("internvl_images_encoded_total") == encoded
    assert again["choices"][0]["token_ids"] == first["choices"][0]["token_ids"]
    assert cached(again) >= 32

    other = ask(daemon, "frame7.png")
    assert other["prompt_token_ids"] == first["prompt_token_ids"]
    assert cached(other) < 16, "only what stands before the picture can be shared"
    assert other["choices"][0]["token_ids"] != first["choices"][0]["token_ids"]


@pytest.mark.parametrize("n", [4])
def test_choices_share_one_prefill_and_one_picture(daemon: Daemon, n: int) -> None:
    encoded = daemon.gauge("internvl_images_encoded_total")
    answer = ask(daemon, "rgb_tall.png", n=n)
    assert daemon.gauge("internvl_images_encoded_total") - encoded <= 1
    texts = {choice["message"]["content"] for choice in answer["choices"]}
    assert len(answer["choices"]) == n
    assert len(texts) == 1, "greedy choices are equal"
    assert answer["usage"]["completion_tokens"] == 8 * n
