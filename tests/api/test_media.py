from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from server.api.media import _in_order, check_images
from server.errors import ApiError
from tests.api.conftest import Rig
from tests.api.fake_engine import says
from tests.api.harness import MODEL, chat, picture_part
from tests.videos import VP9, counted, encode, number_of, video_part

CLIP = encode(counted(100))
TEXT = {"type": "text", "text": "What?"}


def error(rig: Rig, content: Any, **fields: Any) -> tuple[str, str | None]:
    response = rig.api.post(chat(content, **fields))
    assert response.status_code == 400, response.text
    assert rig.engine.received == []
    body = response.json()["error"]
    return body["code"], body["param"]


def test_pictures_and_frames_keep_their_order_and_their_cost(rig: Rig) -> None:
    rig.engine.script = says([5])
    content = [video_part(CLIP), picture_part(), video_part(encode(counted(9), VP9)), TEXT]
    options = {"video": {"num_segments": 3}}
    answer = rig.api.post(chat(content, media_io_kwargs=options)).json()
    (received,) = rig.engine.received
    assert len(received.pictures) == len(received.submit.images) == 7
    frames = received.pictures[:3] + received.pictures[4:]
    assert list(map(number_of, frames)) == [16, 49, 82, 1, 4, 6]
    details = answer["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == 7 * received.submit.images[0].length


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/clip.mp4", "invalid_video_url"),
        ("file:///clip.mp4", "invalid_video_url"),
        ("data:video/mp4;base64,", "empty_video_file"),
        ("data:video/mp4;base64,A", "invalid_base64_video"),
        ("data:video/mp4;base64,AAAA", "invalid_video_format"),
        (picture_part()["image_url"]["url"], "invalid_video_format"),
        (video_part(CLIP[:5000])["video_url"]["url"], "video_parse_error"),
    ],
)
def test_a_video_that_cannot_be_read_is_named(rig: Rig, url: str, code: str) -> None:
    content = [picture_part(), {"type": "video_url", "video_url": {"url": url}}, TEXT]
    assert error(rig, content) == (code, "messages[0].content[1].video_url.url")


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"num_segments": 0}, "integer_below_min_value", ".num_segments"),
        ({"num_segments": 129}, "integer_above_max_value", ".num_segments"),
        ({"num_frames": -1}, "integer_below_min_value", ".num_frames"),
        ({"num_segments": 2, "num_frames": 3}, "invalid_value", ".num_frames"),
        ({"bound": [1]}, "array_below_min_length", ".bound"),
        ({"bound": [1, 2, 3]}, "array_above_max_length", ".bound"),
        ({"bound": [2, 1]}, "invalid_value", ".bound"),
        ({"bound": [-1, 1]}, "decimal_below_min_value", ".bound[0]"),
        ({"bound": [5, 6], "num_segments": 4}, "invalid_value", ".bound"),
        ("all", "invalid_type", ""),
    ],
)
def test_options_that_cannot_be_meant_are_named(
    rig: Rig, options: Any, code: str, param: str
) -> None:
    seen = error(rig, [video_part(CLIP), TEXT], media_io_kwargs={"video": options})
    assert seen == (code, f"media_io_kwargs.video{param}")


def test_an_option_that_nobody_knows_is_named_in_the_header(rig: Rig) -> None:
    rig.engine.script = says([5])
    response = rig.api.post(chat(media_io_kwargs={"video": {"fps": 1}, "audio": {}}))
    names = "media_io_kwargs.video.fps,media_io_kwargs.audio"
    assert response.headers["x-ignored-params"] == names


def test_without_the_library_a_video_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def modalities() -> list[str]:
        model = rig.api.client.get(f"/v1/models/{MODEL}").json()
        value: list[str] = model["architecture"]["input_modalities"]
        return value

    def videos() -> int:
        value: int = rig.api.client.get("/v1/capabilities").json()["limits"]["max_videos"]
        return value

    assert modalities() == ["text", "image", "video"]
    assert videos() > 0
    monkeypatch.setitem(sys.modules, "av", None)
    response = rig.api.post(chat([video_part(CLIP), TEXT]))
    body = response.json()["error"]
    assert (response.status_code, body["code"]) == (400, "unsupported_value")
    assert "internvl-serve[video]" in body["message"]
    assert modalities() == ["text", "image"]
    assert videos() == 0


@pytest.mark.parametrize("detail", ["auto", "low", "high", "original", None])
def test_every_detail_shows_the_whole_picture_at_one_size(rig: Rig, detail: str | None) -> None:
    """More than that is not to be had, so it is said where more was asked for."""
    rig.engine.script = says([5])
    part = picture_part()
    part["image_url"] = {**part["image_url"], "detail": detail}
    response = rig.api.post(chat([part, TEXT]))
    assert response.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 4
    ignored = response.headers.get("x-ignored-params")
    asked_for_more = detail in ("high", "original")
    assert ignored == ("messages.content.image_url.detail" if asked_for_more else None)


def test_a_detail_that_nobody_knows_is_named(rig: Rig) -> None:
    part = picture_part()
    part["image_url"] = {**part["image_url"], "detail": "ultra"}
    assert error(rig, [part]) == ("invalid_value", "messages[0].content[0].image_url.detail")


def test_counting_tokens_needs_no_decoding(rig: Rig) -> None:
    content = [{"type": "video_url", "video_url": "https://example.com/clip.mp4"}, TEXT]
    body = {"messages": [{"role": "user", "content": content}]}

    def count(segments: int) -> int:
        options = {"video": {"num_segments": segments}}
        response = rig.api.client.post("/tokenize", json={**body, "media_io_kwargs": options})
        assert response.status_code == 200, response.text
        assert "x-ignored-params" not in response.headers
        value: int = response.json()["count"]
        return value

    assert count(9) - count(8) > 4


def test_responses_hold_no_videos(rig: Rig) -> None:
    item = {"role": "user", "content": [video_part(CLIP)]}
    output = {"type": "function_call_output", "call_id": "c", "output": [video_part(CLIP)]}
    cases = (
        ([item], "input[0].content"),
        ([item | {"content": "Hi"}, output], "input[1].output"),
    )
    for items, path in cases:
        response = rig.api.client.post("/v1/responses", json={"model": MODEL, "input": items})
        body = response.json()["error"]
        assert (response.status_code, body["code"]) == (400, "unsupported_value")
        assert body["param"] == f"{path}[0].type"


def test_pictures_are_counted() -> None:
    check_images(3, 3)
    with pytest.raises(ApiError, match="at most 3 pictures are accepted in a request, but got 4"):
        check_images(4, 3)


def test_what_comes_after_a_bad_picture_is_given_up() -> None:
    ended: list[str] = []

    async def bad(after_s: float, name: str) -> None:
        await asyncio.sleep(after_s)
        raise ApiError(400, name, "")

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("endless")
            raise

    with pytest.raises(ApiError) as caught:
        asyncio.run(_in_order([bad(0.01, "first"), bad(0, "second"), endless()]))
    assert (caught.value.code, ended) == ("first", ["endless"])
