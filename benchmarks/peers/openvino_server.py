"""OpenVINO GenAI's continuous batching behind as much of the API as the rows need: it brings no
server of its own.

    python -m benchmarks.peers.openvino_server FOLDER --port PORT [--kv-gib 2]

Its pipeline keeps Python's lock while it makes a step, so it has a process of its own. This one
reads requests, and writes what each step gave.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image

MODEL = "mid"


@dataclass(frozen=True)
class Asked:
    """What the pipeline is told of a request."""

    prompt: str
    pictures: list[np.ndarray[Any, Any]]
    """uint8 [1, height, width, 3]."""
    max_tokens: int
    ignore_eos: bool


@dataclass(frozen=True)
class Given:
    """What a step gave a request."""

    number: int
    ids: list[int]
    over: bool


def compute(folder: Path, kv_gib: int, front: Connection) -> None:
    """The pipeline: takes requests, makes steps, tells what each gave."""
    config = genai.SchedulerConfig()
    config.cache_size = kv_gib
    config.enable_prefix_caching = True
    pipeline = genai.ContinuousBatchingPipeline(folder, config, "CPU")
    front.send(None)
    running: dict[int, Any] = {}
    number = 0
    while True:
        while not running or front.poll():
            asked: Asked = front.recv()
            settings = genai.GenerationConfig()
            settings.max_new_tokens = asked.max_tokens
            settings.ignore_eos = asked.ignore_eos
            settings.apply_chat_template = False
            pictures = [openvino.Tensor(picture) for picture in asked.pictures]
            arguments = [asked.prompt, *([pictures] if pictures else []), settings]
            running[number] = pipeline.add_request(number, *arguments)
            number += 1
        pipeline.step()
        given = []
        for one, handle in running.items():
            ids: list[int] = []
            while handle.can_read():
                ids += [id_ for output in handle.read().values() for id_ in output.generated_ids]
            over = handle.get_status() != genai.GenerationStatus.RUNNING
            if ids or over:
                given.append(Given(one, ids, over))
        for one in given:
            if one.over:
                del running[one.number]
        front.send(given)


@dataclass
class Answer:
    """A request whose answer comes piece by piece."""

    prompt_tokens: int
    """Without those of pictures."""
    pieces: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    """None at the end."""
    tokens: int = 0


class Front:
    """Requests to the pipeline, and answers from it."""

    def __init__(self, folder: Path, kv_gib: int) -> None:
        self.tokenizer = genai.Tokenizer(folder)
        self._answers: dict[int, Answer] = {}
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        context.Process(target=compute, args=(folder, kv_gib, other), daemon=True).start()
        self._pipe.recv()

    def start(self) -> None:
        """Listens from here on, for the event loop that runs."""
        arguments = (asyncio.get_running_loop(),)
        threading.Thread(target=self._listen, args=arguments, daemon=True).start()

    def ask(self, asked: Asked) -> Answer:
        tokens = self.tokenizer.encode(asked.prompt).input_ids.shape[1]
        answer = self._answers[len(self._answers)] = Answer(tokens)
        self._pipe.send(asked)
        return answer

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            loop.call_soon_threadsafe(self._hand_out, self._pipe.recv())

    def _hand_out(self, given: list[Given]) -> None:
        spoken = [one for one in given if one.ids]
        texts = self.tokenizer.decode([one.ids for one in spoken]) if spoken else []
        for one, text in zip(spoken, texts, strict=True):
            answer = self._answers[one.number]
            answer.tokens += len(one.ids)
            answer.pieces.put_nowait(text)
        for one in given:
            if one.over:
                self._answers[one.number].pieces.put_nowait(None)


def picture(url: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(url.partition(",")[2])
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))[None]


def application(front: Front) -> FastAPI:
    app = FastAPI()
    app.router.on_startup.append(front.start)

    def read(body: dict[str, Any]) -> Asked:
        history, pictures = [], []
        for message in body["messages"]:
            content, text = message["content"], ""
            for part in [{"text": content}] if isinstance(content, str) else content:
                if "image_url" in part:
                    pictures.append(picture(part["image_url"]["url"]))
                    text += "<image>\n"
                else:
                    text += part["text"]
            history.append({"role": message["role"], "content": text})
        return Asked(
            front.tokenizer.apply_chat_template(history, add_generation_prompt=True),
            pictures,
            body.get("max_tokens") or body.get("max_completion_tokens") or 64,
            bool(body.get("ignore_eos")),
        )

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def complete(body: dict[str, Any]) -> Any:
        answer = front.ask(read(body))
        if body.get("stream"):
            return StreamingResponse(events(answer), media_type="text/event-stream")
        text = "".join([piece async for piece in pieces(answer)])
        message = {"role": "assistant", "content": text}
        return {"choices": [{"index": 0, "message": message}], "usage": usage(answer)}

    async def pieces(answer: Answer) -> AsyncIterator[str]:
        while (piece := await answer.pieces.get()) is not None:
            yield piece

    def usage(answer: Answer) -> dict[str, int]:
        return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens}

    async def events(answer: Answer) -> AsyncIterator[str]:
        async for piece in pieces(answer):
            delta = {"content": piece or " "}
            yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"index": 0, "delta": {}, "finish_reason": "length"}
        yield event({"choices": [end]}) + event({"choices": [], "usage": usage(answer)})
        yield "data: [DONE]\n\n"

    def event(chunk: dict[str, Any]) -> str:
        return f"data: {json.dumps(chunk)}\n\n"

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kv-gib", type=int, default=2)
    chosen = parser.parse_args()
    app = application(Front(chosen.folder, chosen.kv_gib))
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, log_level="warning")


if __name__ == "__main__":
    main()
