"""Time on a device, and errors against a reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor


def timed_ms(
    work: Callable[[], object], device: torch.device, repeats: int = 10, warm_up: int = 3
) -> float:
    """Median time of `work` on its device: between events on a GPU, by the clock on a CPU."""
    for _ in range(warm_up):
        work()
    once = _once_on_gpu if device.type == "cuda" else _once_on_cpu
    return statistics.median(once(work) for _ in range(repeats))


def _once_on_gpu(work: Callable[[], object]) -> float:
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    # About a millisecond, in which launches queue up: a device that waits for each of them would be
    # timed as slow as the host launches.
    torch.cuda._sleep(2_000_000)  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _once_on_cpu(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Of all elements together; NaN where there is one."""
    difference = (value.double() - reference.double()).norm() / reference.double().norm()
    return float(difference)


def free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
