"""A torch profiler trace of the first steps that count, written where the daemon was started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")

log = logging.getLogger(__name__)


class StepProfile:
    """Runs steps on the thread that computes them: the profiler sees no other.

    Args:
        steps: how many to record.
        path: of the trace, for Perfetto or chrome://tracing.
    """

    def __init__(self, steps: int, path: Path, device: torch.device) -> None:
        self._steps = self._left = steps
        self._path = path
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)

    def run(self, step: Callable[[], T]) -> T:
        """What `step` returns; writes the trace when so many have run."""
        if self._left == 0:
            return step()
        if self._left == self._steps:
            self._profile.start()
        result = step()
        self._left -= 1
        if self._left == 0:
            self._write()
        return result

    def _write(self) -> None:
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._path))
        if self._path.exists():  # torch only prints why it could not write
            log.info("wrote the trace of %d steps to %s", self._steps, self._path)
        else:
            log.error("the trace of steps could not be written to %s", self._path)
