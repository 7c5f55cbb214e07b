"""One request to a server, and what a client saw of it.

Times are taken when bytes come out of the socket, before they are decoded. A chunk counts when it
brings text or a piece of a tool call: a role, a comment or usage is no token.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from server.bench.plan import BenchError

CONNECT_S = 10
SILENCE_S = 600
ERROR_CHARS_MAX = 300
READ_BYTES = 2**20


class Measured(msgspec.Struct, frozen=True):
    """A request as its client saw it; times in seconds."""

    sent_s: float
    """Since the point began."""
    lag_s: float
    """How late it was sent: the load generator's own fault."""
    end_to_end_s: float
    """To the last token."""
    first_token_s: float | None = None
    gaps_s: list[float] = []
    """Between chunks with content."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish: str | None = None
    error: str | None = None

    @property
    def per_output_token_s(self) -> float | None:
        """(end to end - first token) / (tokens - 1)."""
        if self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.end_to_end_s - self.first_token_s) / (self.output_tokens - 1)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Server:
    """The server under test.

    Args:
        base_url: ends in `/v1`.
        model: None takes the first that is listed.
    """

    def __init__(self, base_url: str, model: str | None, api_key: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._root = self.base_url.removesuffix("/v1")
        self._model = model
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made at first use: it belongs to the event loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(connect=CONNECT_S, sock_read=SILENCE_S),
                headers={"authorization": f"Bearer {self._api_key}"},
                read_bufsize=READ_BYTES,
                trace_configs=[_notes_reuse()],
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def describe(self) -> dict[str, Any]:
        """Model and version, as far as the server tells.

        Raises:
            BenchError: nobody is there, or it lists no model.
        """
        try:
            if self._model is None:
                listed = await self._get(f"{self.base_url}/models")
                self._model = str(listed["data"][0]["id"])
            try:
                version = await self._get(f"{self._root}/version")
            except aiohttp.ClientResponseError:
                version = None
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            raise BenchError(
                f"no answer from {self.base_url} ({type(error).__name__}: {error}); name a server "
                "with --base-url, and its model with --model where it lists none"
            ) from None
        return {"base_url": self.base_url, "model": self._model, "version": version}

    async def _get(self, url: str) -> Any:
        async with self._http.get(url, raise_for_status=True) as response:
            return await response.json(content_type=None)

    async def ask(
        self, fields: dict[str, Any], *, epoch_s: float, due_s: float
    ) -> tuple[Measured, str]:
        """Sends a request and reads its stream; returns what was seen, and the text.

        Args:
            epoch_s: when the point began, on the clock of `time.perf_counter`.
            due_s: when the request was to be sent, since then.
        """
        body = msgspec.json.encode(
            {
                "model": self._model,
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0,
                **fields,
            }
        )
        reading = _Reading(time.perf_counter())
        error: str | None = None
        try:
            error = await self._read(body, reading)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return reading.measured(epoch_s, due_s, error), "".join(reading.text)

    async def _read(self, body: bytes, reading: _Reading) -> str | None:
        """Fills `reading`; returns what the server objected to."""
        async with await self._post(body) as response:
            if response.status != 200:
                text = (await response.read()).decode(errors="replace")
                return f"HTTP {response.status}: {text[:ERROR_CHARS_MAX]}"
            async for now, event in _events(response):
                if event == b"[DONE]":
                    return None if reading.first_s is not None else "no token came"
                chunk = _decode(event)
                if chunk.error is not None:
                    return bytes(chunk.error).decode(errors="replace")[:ERROR_CHARS_MAX]
                reading.take(now, chunk)
        return "the stream ended before its end"

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """The response, of which the head is there.

        Some servers hang up behind a stream and do not say so. Who then finds the kept connection
        closed has learned nothing about the request, and takes another one; a new one is the last.
        """
        headers = {"content-type": "application/json"}
        url = f"{self.base_url}/chat/completions"
        while True:
            connection = SimpleNamespace(kept=False)
            try:
                return await self._http.post(
                    url, data=body, headers=headers, trace_request_ctx=connection
                )
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not connection.kept:
                    raise


def _notes_reuse() -> aiohttp.TraceConfig:
    """Notes in a request's context when its connection is one that was kept."""
    trace = aiohttp.TraceConfig()

    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.kept = True

    trace.on_connection_reuseconn.append(note)
    return trace


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[float, bytes]]:
    """Data of each event, with the time at which its last byte came."""
    rest = b""
    async for piece in response.content.iter_any():
        now = time.perf_counter()
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield now, line[5:].strip()


class _Reading:
    """What has come of a stream."""

    def __init__(self, sent_s: float) -> None:
        self.first_s: float | None = None
        self.text: list[str] = []
        self._sent_s = self._last_s = sent_s
        self._last_content_s = sent_s
        self._gaps_s: list[float] = []
        self._usage = _Usage()
        self._finish: str | None = None

    def take(self, now: float, chunk: _Chunk) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            delta = choice.delta
            self._finish = choice.finish_reason or self._finish
            if delta.content or delta.reasoning_content or delta.tool_calls:
                self._content(now, delta.content or "")
            if choice.finish_reason:
                self._last_s = now

    def _content(self, now: float, text: str) -> None:
        if self.first_s is None:
            self.first_s = now
        else:
            self._gaps_s.append(now - self._last_content_s)
        self._last_content_s = self._last_s = now
        self.text.append(text)

    def measured(self, epoch_s: float, due_s: float, error: str | None) -> Measured:
        sent_s, details = self._sent_s - epoch_s, self._usage.prompt_tokens_details
        return Measured(
            sent_s=sent_s,
            lag_s=sent_s - due_s,
            end_to_end_s=self._last_s - self._sent_s,
            first_token_s=None if self.first_s is None else self.first_s - self._sent_s,
            gaps_s=self._gaps_s,
            prompt_tokens=self._usage.prompt_tokens,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            output_tokens=self._usage.completion_tokens,
            finish=self._finish,
            error=error,
        )
