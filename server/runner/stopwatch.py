"""How long a piece of work takes on the device, without waiting for it there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Stopwatch:
    """Adds up what is inside `running`. On a GPU the marks are events in its stream, so `seconds`
    may be asked only when the work is known to be done."""

    device: torch.device
    _host_s: float = 0.0
    _events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.device.type == "cpu":
            began_s = time.perf_counter()
            yield
            self._host_s += time.perf_counter() - began_s
            return
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        yield
        ended.record()
        self._events.append((began, ended))

    def seconds(self) -> float:
        device_ms: float = sum(began.elapsed_time(ended) for began, ended in self._events)
        return self._host_s + device_ms / 1000
