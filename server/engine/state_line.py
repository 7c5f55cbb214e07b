"""The engine's state as a log line every few seconds while it works; nothing while it is idle."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec

from server.messages import Gauges

INTERVAL_S = 10.0

log = logging.getLogger(__name__)


class StateLine:
    """Told of the gauges after every step.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._then = Gauges()
        self._then_s = self._last_s = -math.inf

    def note(self, gauges: Gauges) -> None:
        now_s = self._clock()
        idle, self._last_s = now_s - self._last_s > INTERVAL_S, now_s
        if idle:  # rates over a pause would say nothing of the work after it
            self._then, self._then_s = gauges, now_s
        elif now_s - self._then_s >= INTERVAL_S:
            self._write(gauges, now_s - self._then_s)
            self._then, self._then_s = gauges, now_s

    def _write(self, now: Gauges, seconds: float) -> None:
        rate = {
            name: (getattr(now, name) - getattr(self._then, name)) / seconds
            for name in now.__struct_fields__
            if name.endswith("_total")
        }
        prompt, cached = rate["prompt_tokens_total"], rate["cached_tokens_total"]
        fields: dict[str, Any] = msgspec.structs.asdict(now)
        log.info(
            "%d running, %d waiting, KV %.0f %%; %.0f tokens/s in (%.0f %% cached), "
            "%.0f tokens/s out, %.1f pictures/s (%.1f cached), %.0f steps/s, %d preempted",
            now.requests_running,
            now.requests_waiting,
            100 * now.kv_blocks_used / max(1, now.kv_blocks),
            prompt,
            100 * cached / prompt if prompt else 0.0,
            rate["generated_tokens_total"],
            rate["images_encoded_total"] + rate["images_cached_total"],
            rate["images_cached_total"],
            rate["steps_total"],
            now.preemptions_total - self._then.preemptions_total,
            extra={"fields": fields},
        )
