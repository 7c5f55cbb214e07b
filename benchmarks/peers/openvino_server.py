"""OpenVINO GenAI's continuous batching behind as much of the API as the rows need: it brings no
server of its own.

    python -m benchmarks.peers.openvino_server FOLDER --port PORT [--kv-gib 4]

One thread takes requests, makes steps and hands out the text of each; the event loop writes it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int


@dataclass
class Request:
    prompt: str
    pictures: list[openvino.Tensor]
    settings: genai.GenerationConfig
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | None] = field(default_factory=asyncio.Queue)
    """What each step gave; None at the end."""
    prompt_tokens: int = 0
    """Without those of pictures."""

    def give(self, piece: Piece | None) -> None:
        self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class Engine:
    def __init__(self, folder: Path, kv_gib: int) -> None:
        config = genai.SchedulerConfig()
        config.cache_size = kv_gib
        config.enable_prefix_caching = True
        self.pipeline = genai.ContinuousBatchingPipeline(folder, config, "CPU")
        self.tokenizer = self.pipeline.get_tokenizer()
        self.arrived: queue.SimpleQueue[Request] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        running: list[tuple[Request, Any]] = []
        number = 0
        while True:
            while not running or not self.arrived.empty():
                request = self.arrived.get()
                request.prompt_tokens = self.tokenizer.encode(request.prompt).input_ids.shape[1]
                arguments = [request.prompt, request.settings]
                if request.pictures:
                    arguments.insert(1, request.pictures)
                running.append((request, self.pipeline.add_request(number, *arguments)))
                number += 1
            self.pipeline.step()
            going_on = []
            for request, handle in running:
                while handle.can_read():
                    for output in handle.read().values():
                        ids = output.generated_ids
                        # Here, because beside a step it would wait for the threads of that.
                        request.give(Piece(self.tokenizer.decode(ids), len(ids)))
                if handle.get_status() == genai.GenerationStatus.RUNNING:
                    going_on.append((request, handle))
                else:
                    request.give(None)
            running = going_on


def picture(url: str) -> openvino.Tensor:
    data = base64.b64decode(url.partition(",")[2])
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return openvino.Tensor(pixels[None])


def application(engine: Engine) -> FastAPI:
    app = FastAPI()

    def read(body: dict[str, Any]) -> Request:
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
        prompt = engine.tokenizer.apply_chat_template(history, add_generation_prompt=True)
        settings = genai.GenerationConfig()
        settings.max_new_tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 64
        settings.ignore_eos = bool(body.get("ignore_eos"))
        settings.apply_chat_template = False
        return Request(prompt, pictures, settings, asyncio.get_running_loop())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "mid", "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def complete(body: dict[str, Any]) -> Any:
        request = read(body)
        engine.arrived.put(request)
        if body.get("stream"):
            return StreamingResponse(events(request), media_type="text/event-stream")
        pieces: list[Piece] = []
        while (piece := await request.pieces.get()) is not None:
            pieces.append(piece)
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        return {"choices": [{"index": 0, "message": message}], "usage": usage(request, pieces)}

    def usage(request: Request, pieces: list[Piece]) -> dict[str, int]:
        said = sum(piece.tokens for piece in pieces)
        return {"prompt_tokens": request.prompt_tokens, "completion_tokens": said}

    async def events(request: Request) -> AsyncIterator[str]:
        pieces: list[Piece] = []
        while (piece := await request.pieces.get()) is not None:
            pieces.append(piece)
            delta = {"content": piece.text or " "}
            yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"index": 0, "delta": {}, "finish_reason": "length"}
        yield event({"choices": [end]}) + event({"choices": [], "usage": usage(request, pieces)})
        yield "data: [DONE]\n\n"

    def event(chunk: dict[str, Any]) -> str:
        return f"data: {json.dumps(chunk)}\n\n"

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kv-gib", type=int, default=4)
    chosen = parser.parse_args()
    app = application(Engine(chosen.folder, chosen.kv_gib))
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, log_level="warning")


if __name__ == "__main__":
    main()
