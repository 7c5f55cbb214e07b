"""`internvl-serve ask` and `chat`: a client for the terminal.

It talks to a running daemon, or to any other that speaks its API, and writes answers as they come.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import httpx

CONNECT_S = 5
SILENCE_S = 120
"""Keep-alive comments come more often than this."""

IMAGE_COMMAND = "/image"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv")

Message = dict[str, Any]


class TerminalError(Exception):
    """Something to tell the person at the terminal."""


class Daemon:
    """The other end.

    Args:
        model: name to ask for; the first that is listed where there is none.
    """

    def __init__(self, base_url: str, model: str | None, api_key: str = "none") -> None:
        self._base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            headers={"authorization": f"Bearer {api_key}"},
        )
        self._model = model

    def answer(self, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        """The answer's text, piece by piece.

        Raises:
            TerminalError: nobody is there, or the request was refused.
        """
        body = {"model": self._name(), "messages": messages, "stream": True, **options}
        try:
            with self._http.stream(
                "POST", f"{self._base_url}/chat/completions", json=body
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise TerminalError(_message_of(response.text))
                yield from _pieces(response.iter_lines())
        except httpx.TransportError as error:
            raise TerminalError(self._unreachable(error)) from None

    def _name(self) -> str:
        if self._model is None:
            try:
                response = self._http.get(f"{self._base_url}/models")
                if response.status_code != 200:
                    raise TerminalError(_message_of(response.text))
                self._model = str(response.json()["data"][0]["id"])
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                raise TerminalError(self._unreachable(error)) from None
        return self._model

    def _unreachable(self, error: Exception) -> str:
        return (
            f"no answer from {self._base_url} ({type(error).__name__}). Start a daemon with "
            "`internvl-serve serve`, or name another one with --base-url."
        )


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        data = line.removeprefix("data: ")
        if data in (line, "[DONE]"):
            continue
        event = json.loads(data)
        if "error" in event:
            raise TerminalError(_message_of(data))
        for choice in event["choices"]:
            yield choice["delta"].get("content") or ""


def _message_of(text: str) -> str:
    """What an error body says; its beginning where it is not OpenAI's."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]


def message(text: str, pictures: Sequence[Path]) -> Message:
    """A user's message with pictures and videos in front of its text.

    Raises:
        TerminalError: a picture cannot be read.
    """
    parts: list[dict[str, Any]] = []
    for picture in pictures:
        try:
            data = base64.b64encode(picture.read_bytes()).decode()
        except OSError as error:
            raise TerminalError(f"{picture}: {error.strerror}") from None
        url = f"data:application/octet-stream;base64,{data}"
        kind = "video_url" if picture.suffix.lower() in VIDEO_SUFFIXES else "image_url"
        parts.append({"type": kind, kind: {"url": url}})
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the commands; returns the exit status."""
    daemon = Daemon(arguments.base_url, arguments.model, arguments.api_key)
    options: dict[str, Any] = {"temperature": arguments.temperature}
    if arguments.max_tokens is not None:
        options["max_tokens"] = arguments.max_tokens
    try:
        if arguments.command == "ask":
            _ask(daemon, arguments, options)
        else:
            _chat(daemon, arguments.image, options, sys.stdin)
    except TerminalError as error:
        print(f"internvl-serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


def _ask(daemon: Daemon, arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    first = [arguments.picture] if arguments.picture else []
    if arguments.json_schema:
        options["response_format"] = _response_format(arguments.json_schema)
    _write(daemon.answer([message(arguments.question, first + arguments.image)], **options))


def _response_format(schema: str) -> dict[str, Any]:
    try:
        text = schema if schema.lstrip().startswith("{") else Path(schema).read_text("utf-8")
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": json.loads(text)},
        }
    except OSError as error:
        raise TerminalError(f"{schema}: {error.strerror}") from None
    except ValueError:
        raise TerminalError("--json-schema: this is not JSON") from None


def _chat(daemon: Daemon, pictures: Sequence[Path], options: dict[str, Any], lines: TextIO) -> None:
    """Reads questions until the end of the input; `/image PATH` adds a picture to the next."""
    interactive = lines.isatty()
    if interactive:
        print(f"{IMAGE_COMMAND} PATH adds a picture to the next question; Ctrl-D ends.")
    history: list[Message] = []
    pictures = list(pictures)
    while True:
        print("> " if interactive else "", end="", flush=True)
        line = lines.readline()
        if not line:
            return
        question = line.strip()
        if question.startswith(f"{IMAGE_COMMAND} "):
            pictures.append(Path(question.removeprefix(IMAGE_COMMAND).strip()))
        elif question:
            try:
                asked = message(question, pictures)
                answer = _write(daemon.answer([*history, asked], **options))
            except TerminalError as error:
                print(f"internvl-serve: {error}", file=sys.stderr)
                pictures = []
                continue
            history += [asked, {"role": "assistant", "content": answer}]
            pictures = []


def _write(pieces: Iterator[str]) -> str:
    answer = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        answer += piece
    print()
    return answer
