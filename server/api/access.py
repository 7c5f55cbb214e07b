"""The record of a request for an answer: its times and numbers, and one log line when it is over.

Never text: neither what a client wrote nor what the model did. The line has the same fields on a
terminal and as JSON.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.api.answer import Answer
from server.api.keys import NOBODY, Key
from server.api.patience import ENDLESS, Patience
from server.api.tracing import Tracer, Untraced
from server.messages import Delta
from server.metrics import ApiMetrics

log = logging.getLogger("server.access")

WORDS = (
    ("prompt", "prompt_tokens", ""),
    ("image", "image_tokens", ""),
    ("cached", "cached_tokens", ""),
    ("output", "output_tokens", ""),
    ("ttft", "ttft_ms", "ms"),
    ("prepare", "prepare_ms", "ms"),
    ("queue", "queue_ms", "ms"),
    ("prefill", "prefill_ms", "ms"),
    ("decode", "decode_ms", "ms"),
    ("total", "total_ms", "ms"),
    ("pictures", "pictures", ""),
    ("body", "body_bytes", "B"),
    ("end", "end", ""),
)
"""How the line calls each field, and its unit."""


@dataclass(slots=True)
class ChatRecord:
    """What is known of a request so far. Times are of the monotonic clock, in seconds."""

    request_id: str
    kind: str
    """What was asked for, as the line begins."""
    metrics: ApiMetrics
    tracer: Tracer = field(default_factory=Untraced)
    caller: Mapping[str, str] = field(default_factory=dict)
    """The caller's W3C trace context."""
    key: Key = NOBODY
    patience: Patience = ENDLESS
    began_at: float = field(default_factory=time.monotonic)
    body_bytes: int | None = None
    read_at: float | None = None
    """When the body was there."""
    submitted_at: float | None = None
    """When the engine was asked."""
    pictures: int | None = None
    queued_s: float | None = None
    prefill_s: float | None = None
    first_token_at: float | None = None
    last_token_at: dict[int, float] = field(default_factory=dict)
    """By choice."""
    answer: Answer | None = None
    failure: str | None = None
    """Error code, when it ended by one."""

    def read(self, declared_bytes: str) -> None:
        """Notes that the body is there; its length is not known of one that came in chunks."""
        self.read_at = time.monotonic()
        if declared_bytes.isdecimal():
            self.body_bytes = int(declared_bytes)

    def submitted(self, pictures: int) -> None:
        self.pictures, self.submitted_at = pictures, time.monotonic()

    def take(self, index: int, delta: Delta) -> None:
        """Notes when the tokens of a delta came."""
        if not delta.token_ids:
            return
        now, count = time.monotonic(), len(delta.token_ids)
        if self.first_token_at is None:
            self.first_token_at = now
            self.queued_s, self.prefill_s = delta.queued_s, delta.prefill_s
        last = self.last_token_at.get(index)
        if last is not None:
            self.metrics.inter_token_latency.observe((now - last) / count, count)
        self.last_token_at[index] = now

    @property
    def prepare_s(self) -> float | None:
        return _between(self.read_at, self.submitted_at)

    @property
    def time_to_first_token_s(self) -> float | None:
        return _between(self.began_at, self.first_token_at)

    @property
    def decode_s(self) -> float | None:
        """From the first token to the last."""
        return _between(self.first_token_at, max(self.last_token_at.values(), default=None))

    def phases(self) -> Iterator[tuple[str, float, float]]:
        """Name, begin and end of what has happened. The engine tells how long a request waited and
        was computed until its first token, not when: both end with that token."""
        if self.read_at is not None and self.submitted_at is not None:
            yield "prepare", self.read_at, self.submitted_at
        first, queued_s, prefill_s = self.first_token_at, self.queued_s, self.prefill_s
        if first is None or queued_s is None or prefill_s is None:
            return
        yield "queue", first - prefill_s - queued_s, first - prefill_s
        yield "prefill", first - prefill_s, first
        yield "decode", first, max(self.last_token_at.values())

    def write(self, status: int) -> None:
        """Counts the request and writes its line. 499 stands for a client that went away before the
        response began."""
        total_s = time.monotonic() - self.began_at
        measure(self, status, total_s)
        self.tracer.request(self, status)
        numbers = self._numbers(total_s)
        words = " ".join(f"{word}={_shown(numbers[name], unit)}" for word, name, unit in WORDS)
        head = {"request_id": self.request_id, "kind": self.kind, "status": status}
        if self.key.name:
            head["key"] = self.key.name
        log.info(
            "%s %s %s%d %s",
            self.kind,
            self.request_id,
            f"key={self.key.name} " if self.key.name else "",
            status,
            words,
            extra={"fields": head | numbers},
        )

    def _numbers(self, total_s: float) -> dict[str, Any]:
        answer = self.answer
        return {
            "prompt_tokens": answer and answer.prompt_tokens,
            "image_tokens": answer and answer.image_tokens,
            "cached_tokens": answer and answer.cached_tokens,
            "output_tokens": answer and answer.output_tokens,
            "ttft_ms": _ms(self.time_to_first_token_s),
            "prepare_ms": _ms(self.prepare_s),
            "queue_ms": _ms(self.queued_s),
            "prefill_ms": _ms(self.prefill_s),
            "decode_ms": _ms(self.decode_s),
            "total_ms": _ms(total_s),
            "pictures": self.pictures,
            "body_bytes": self.body_bytes,
            "end": self.end(),
        }

    def end(self) -> str:
        """The error's code, or why each choice ended."""
        if self.failure is not None:
            return self.failure
        reasons = [choice.finish_reason for choice in self.answer.choices] if self.answer else []
        return ",".join(reason or "disconnected" for reason in reasons) or "disconnected"


def measure(record: ChatRecord, status: int, total_s: float) -> None:
    """Adds a request that is over to the metrics."""
    metrics = record.metrics
    if record.failure is not None:
        metrics.errors.increase(record.failure)
    if record.submitted_at is None:
        if status in (429, 503) and record.failure is not None:
            metrics.refused.increase(record.failure)
        return
    for histogram, seconds in (
        (metrics.prepare_seconds, record.prepare_s),
        (metrics.queue_seconds, record.queued_s),
        (metrics.prefill_seconds, record.prefill_s),
        (metrics.time_to_first_token, record.time_to_first_token_s),
        (metrics.decode_seconds, record.decode_s),
    ):
        if seconds is not None:
            histogram.observe(seconds)
    answer = record.answer
    assert answer is not None
    for choice in answer.choices:
        unfinished = "cancelled" if record.failure is None else "error"
        metrics.finished.increase(choice.finish_reason or unfinished)
    metrics.request_prompt_tokens.observe(answer.prompt_tokens)
    metrics.request_output_tokens.observe(answer.output_tokens)
    metrics.image_tokens.increase(amount=answer.image_tokens)
    if all(choice.finish_reason for choice in answer.choices) and record.failure is None:
        metrics.request_seconds.observe(total_s)
        longest = max(len(choice.token_ids) for choice in answer.choices)
        if record.decode_s is not None and longest > 1:
            metrics.time_per_output_token.observe(record.decode_s / (longest - 1))


def _between(began_at: float | None, ended_at: float | None) -> float | None:
    return None if began_at is None or ended_at is None else ended_at - began_at


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _shown(value: Any, unit: str) -> str:
    return "-" if value is None else f"{value}{unit}"
