"""Pictures by every way in, their order, and files that are none."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, expect

from tests.page.playground import Playground, picture, png

RECORD_VIDEO = """async () => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, {width: 64, height: 48});
    const pen = canvas.getContext("2d");
    const recorder = new MediaRecorder(canvas.captureStream(20), {mimeType: "video/webm"});
    const parts = [];
    recorder.ondataavailable = ({data}) => parts.push(data);
    recorder.start();
    for (let at = 0; at < 20; at++) {
        pen.fillStyle = at < 10 ? "red" : "blue";
        pen.fillRect(0, 0, 64, 48);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await new Promise((resolve) => { recorder.onstop = resolve; recorder.stop(); });
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    return btoa(String.fromCharCode(...bytes));
}"""


def sent_pictures(page: Playground) -> list[bytes]:
    content = page.bodies[-1]["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def complaint(page: Playground) -> str:
    expect(page.tab.locator("#complaint")).not_to_be_empty()
    return page.tab.locator("#complaint").inner_text()


def test_pictures_are_sent_as_they_are_in_the_order_that_was_chosen(page: Playground) -> None:
    page.set(max_tokens="4")
    red, green, blue = (picture(colour) for colour in ("red", "green", "blue"))
    page.drop(("red.png", "image/png", red), ("green.png", "image/png", green))
    page.thumbnails(2)
    page.paste(("blue.png", "image/png", blue))
    assert page.thumbnails(3) == ["red.png", "green.png", "blue.png"]
    page.tab.locator("#tray li").nth(2).focus()
    page.tab.keyboard.press("ArrowLeft")
    page.tab.keyboard.press("ArrowLeft")
    assert page.thumbnails(3) == ["blue.png", "red.png", "green.png"]
    page.tab.locator("#tray li").nth(0).drag_to(page.tab.locator("#tray li").nth(2))
    assert page.thumbnails(3) == ["red.png", "green.png", "blue.png"]
    page.tab.get_by_label("Remove green.png").click()
    page.thumbnails(2)
    page.ask_and_read("Which is larger?")
    assert sent_pictures(page) == [red, blue]
    expect(page.tab.locator("#tray li")).to_have_count(0)


def test_a_picture_from_a_file_field(page: Playground) -> None:
    file = FilePayload(name="a.webp", mimeType="image/webp", buffer=picture(form="WEBP"))
    page.tab.set_input_files("#files", file)
    page.thumbnails(1)
    page.set(max_tokens="4")
    page.ask_and_read("")
    assert page.bodies[-1]["messages"][-1]["content"][0]["image_url"]["url"].startswith(
        "data:image/webp;base64,"
    )


def test_a_picture_that_only_the_browser_knows_is_redrawn(page: Playground) -> None:
    page.drop(("a.bmp", "image/bmp", picture(form="BMP")))
    page.thumbnails(1)
    page.set(max_tokens="4")
    page.ask_and_read("What is it?")
    (sent,) = sent_pictures(page)
    assert Image.open(io.BytesIO(sent)).format == "PNG"
    assert Image.open(io.BytesIO(sent)).getpixel((112, 112))[:3] == (255, 0, 0)  # type: ignore[index]


def test_a_picture_from_the_camera(page: Playground) -> None:
    page.tab.click("#open-camera")
    page.tab.wait_for_function("() => document.getElementById('camera-view').videoWidth > 0")
    page.tab.click("#shoot")
    assert page.thumbnails(1)[0].startswith("camera ")
    expect(page.tab.locator("#camera")).not_to_be_visible()


def test_a_video_becomes_frames(page: Playground) -> None:
    video = base64.b64decode(page.tab.evaluate(RECORD_VIDEO))
    page.set(frames="4", max_tokens="4")
    page.drop(("clip.webm", "video/webm", video))
    names = page.thumbnails(4)
    assert all(name.startswith("clip.webm, ") for name in names)
    page.ask_and_read("What happens?")
    content: list[dict[str, Any]] = page.bodies[-1]["messages"][-1]["content"]
    texts = [part["text"] for part in content if part["type"] == "text"]
    assert texts == ["Frame1: ", "Frame2: ", "Frame3: ", "Frame4: ", "What happens?"]
    first, *_, last = (
        Image.open(io.BytesIO(frame)).getpixel((9, 9)) for frame in sent_pictures(page)
    )
    assert isinstance(first, tuple) and isinstance(last, tuple)
    assert first[0] > 200 > first[2]
    assert last[2] > 200 > last[0]


@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("broken.png", "image/png", picture()[:40], "“broken.png” cannot be read as a picture"),
        ("notes.png", "image/png", b"no picture at all", "cannot be read as a picture"),
        ("empty.png", "image/png", b"", "“empty.png” is empty"),
        ("clip.mp4", "video/mp4", b"no video at all", "“clip.mp4” cannot be played"),
        ("large.png", "image/png", picture() + bytes(2**20), "this server takes up to 1 MB"),
    ],
)
def test_a_file_that_cannot_be_used(
    page: Playground, name: str, kind: str, content: bytes, said: str
) -> None:
    page.paste((name, kind, content))
    assert said in complaint(page)
    page.drop(png("good.png"))
    page.thumbnails(1)
    expect(page.tab.locator("#complaint")).to_be_empty()


def test_a_picture_that_only_the_server_refuses(page: Playground) -> None:
    page.drop(png("good.png"))
    page.thumbnails(1)
    page.drop(("strip.png", "image/png", picture(size=(3000, 10))))
    page.thumbnails(2)
    page.ask("What is it?")
    failure = page.tab.locator(".failure")
    expect(failure).to_contain_text("“strip.png” cannot be used")
    expect(failure).to_contain_text("one side may be at most 200 times the other")
    expect(failure.get_by_role("button")).to_have_count(0)
    assert page.refused == [400]
