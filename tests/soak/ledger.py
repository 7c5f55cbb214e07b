"""What became of every request: each must end once, and only a restart excuses a failure."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

RESTARTING = {"engine_restarted", "engine_died", "model_loading"}


@dataclass
class Ledger:
    """Shared by all clients."""

    ends: Counter[str] = field(default_factory=Counter)
    """How requests ended, by kind and outcome."""
    wrong: list[str] = field(default_factory=list)
    _failures: list[tuple[float, str]] = field(default_factory=list)
    _restarts: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, kind: str, outcome: str) -> None:
        with self._lock:
            self.ends[f"{kind} {outcome}"] += 1
            if outcome in RESTARTING:
                self._failures.append((time.monotonic(), f"{kind}: {outcome}"))

    def blame(self, kind: str, what: str) -> None:
        with self._lock:
            self.wrong.append(f"{kind}: {what}")

    def restarted(self, begin_s: float, end_s: float) -> None:
        """The engine was not there for a while of the monotonic clock."""
        self._restarts.append((begin_s, end_s))

    def check(self) -> None:
        strays = [
            what
            for at_s, what in self._failures
            if not any(begin_s <= at_s <= end_s for begin_s, end_s in self._restarts)
        ]
        assert not self.wrong, self.wrong[:10]
        assert not strays, strays[:10]


def stream_outcome(lines: Iterable[str], choices: int) -> str:
    """How a stream ended, from its lines.

    Raises:
        ValueError: it did not end exactly once, or went on behind its end.
    """
    finished: Counter[int] = Counter()
    terminal: list[str] = []
    for line in filter(None, lines):
        if line.startswith(":"):
            continue
        if terminal:
            raise ValueError(f"{line[:80]!r} behind the end {terminal[0]!r}")
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            terminal.append("done")
            continue
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            terminal.append(event["error"]["code"])
        for choice in event.get("choices", []):
            finished[choice["index"]] += choice["finish_reason"] is not None
    if not terminal:
        raise ValueError("the end was lost")
    if terminal == ["done"] and finished != Counter(range(choices)):
        raise ValueError(f"choices that ended, by index: {dict(finished)}")
    if finished and max(finished.values()) > 1:
        raise ValueError("a choice ended twice")
    return terminal[0]
