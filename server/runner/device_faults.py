"""What devices and allocators raise, told apart: no memory for a step, or no device any more.

After the first the device is as it was, and a daemon can go on. After the second nothing that this
process holds on the device can be trusted, and only a new process gets a new context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from server.engine.plan import OutOfMemoryError

T = TypeVar("T")

CPU_ALLOCATOR = "DefaultCPUAllocator"
"""torch raises a plain RuntimeError where a CPU has no memory; this is in its text."""

log = logging.getLogger(__name__)


class MemoryGuard:
    """Runs steps until one runs out of memory; then none until `clear`. All of it on the thread of
    the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._failed = False
        self._encoding = False

    def run(self, step: Callable[[], T]) -> T:
        """What `step` returns.

        Raises:
            OutOfMemoryError: it, or a step before it, ran out of memory.
        """
        if not self._failed:
            self._encoding = False
            try:
                return step()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.exception("a step ran out of memory")
            # Behind the handler: what it caught holds the tensors of the step.
            self._failed = True
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        raise OutOfMemoryError(encoding=self._encoding)

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Around the part of a step that encodes pictures."""
        self._encoding = True
        yield
        self._encoding = False

    def clear(self) -> None:
        self._failed = False


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)


def is_device_lost(error: BaseException) -> bool:
    """An error of CUDA itself: an illegal access, a GPU that fell off its bus, a reset."""
    return isinstance(error, torch.AcceleratorError)
