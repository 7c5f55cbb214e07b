from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from server.cli import main

PICTURE = b"not looked at by this end"


class FakeDaemon(ThreadingHTTPServer):
    """Streams the words it was given, and remembers the bodies of requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.models: tuple[int, dict[str, Any]] = (
            200,
            {"data": [{"id": "first"}, {"id": "second"}]},
        )
        self.events: list[dict[str, Any]] = [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "a red "}}]},
            {"choices": [{"delta": {"content": "圆"}}]},
            {"choices": [{"delta": {}}]},
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FakeDaemon

    def do_GET(self) -> None:
        status, body = self.server.models
        self._send(json.dumps(body).encode(), status)

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        lines = [f"data: {json.dumps(event)}\n\n" for event in self.server.events]
        body = ": keep-alive\n\n" + "".join(lines) + "data: [DONE]\n\n"
        if self.server.status != 200:
            body = json.dumps({"error": {"message": "too busy"}})
        self._send(body.encode(), self.server.status)

    def _send(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(PICTURE)
    return path


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def content(body: dict[str, Any], index: int = -1) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = body["messages"][index]["content"]
    return parts


def test_ask_sends_the_picture_and_writes_the_answer(
    fake: FakeDaemon, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ask", str(picture), "What is it?", "--base-url", fake.url) == 0
    assert capsys.readouterr().out == "a red 圆\n"
    (body,) = fake.bodies
    assert body["model"] == "first"
    assert body["temperature"] == 0
    image, text = content(body)
    assert text == {"type": "text", "text": "What is it?"}
    assert base64.b64decode(image["image_url"]["url"].split(",")[1]) == PICTURE


def test_a_video_is_told_by_its_name(fake: FakeDaemon, tmp_path: Path) -> None:
    video = tmp_path / "clip.MP4"
    video.write_bytes(b"frames")
    run("ask", str(video), "What happens?", "--base-url", fake.url)
    part = content(fake.bodies[0])[0]
    assert part["type"] == "video_url"
    assert base64.b64decode(part["video_url"]["url"].split(",")[1]) == b"frames"


def test_more_pictures_and_options_are_passed_on(fake: FakeDaemon, picture: Path) -> None:
    more = ["--image", str(picture), "--image", str(picture), "--max-tokens", "7"]
    run("ask", "Which?", *more, "--model", "second", "--base-url", fake.url)
    (body,) = fake.bodies
    assert body["model"] == "second"
    assert body["max_tokens"] == 7
    assert [part["type"] for part in content(body)] == ["image_url", "image_url", "text"]


@pytest.mark.parametrize("as_file", [True, False])
def test_a_schema_is_a_file_or_json(fake: FakeDaemon, tmp_path: Path, as_file: bool) -> None:
    schema = '{"type": "object"}'
    if as_file:
        path = tmp_path / "schema.json"
        path.write_text(schema)
        schema = str(path)
    assert run("ask", "x", "--json-schema", schema, "--base-url", fake.url) == 0
    assert fake.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_chat_remembers_and_takes_pictures(
    fake: FakeDaemon,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(f"Hello\n\n/image {picture}\nAnd this?\n"))
    assert run("chat", "--base-url", fake.url) == 0
    assert capsys.readouterr().out.count("a red 圆\n") == 2
    first, second = fake.bodies
    assert len(first["messages"]) == 1
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "a red 圆"
    assert [part["type"] for part in content(second)] == ["image_url", "text"]


def test_a_question_that_fails_does_not_end_the_conversation(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("/image nowhere.png\nWhat?\nHello\n"))
    assert run("chat", "--base-url", fake.url) == 0
    captured = capsys.readouterr()
    assert "nowhere.png: No such file" in captured.err
    assert "a red" in captured.out


def test_what_goes_wrong_is_said_in_one_line(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ask", "missing.png", "x", "--base-url", fake.url) == 1
    assert run("ask", "x", "--json-schema", "{", "--base-url", fake.url) == 1
    fake.status = 429
    assert run("ask", "x", "--base-url", fake.url) == 1
    fake.status = 200
    fake.events = [{"error": {"message": "the engine died"}}]
    assert run("ask", "x", "--base-url", fake.url) == 1
    fake.models = 401, {"error": {"message": "Incorrect API key provided."}}
    assert run("ask", "x", "--base-url", fake.url) == 1
    fake.models = 200, {"data": []}
    assert run("ask", "x", "--base-url", fake.url) == 1
    assert run("ask", "x", "--base-url", "http://127.0.0.1:9/v1") == 1
    lines = capsys.readouterr().err.splitlines()
    expected = [
        "No such file",
        "not JSON",
        "too busy",
        "the engine died",
        "Incorrect API key",
        "no answer from",
        "no answer from",
    ]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith("internvl-serve: ")
        assert words in line
