"""When requests are sent: at random times that the server has no say in, or as answers come."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator

from server.bench.client import Measured

Ask = Callable[[float, float], Awaitable[Measured]]
"""Sends one request; told when the point began and when the request was due."""


def arrivals(rate: float, count: int, seed: int) -> Iterator[float]:
    """Seconds at which requests of a Poisson process come."""
    rng = random.Random(f"arrivals {seed}")
    return itertools.islice(
        itertools.accumulate(rng.expovariate(rate) for _ in range(count)), count
    )


async def open_loop(ask: Ask, rate: float, count: int, seed: int) -> list[Measured]:
    """Sends `count` requests at random times, `rate` a second, whatever the server does."""
    epoch_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        sent = []
        for due_s in arrivals(rate, count, seed):
            await asyncio.sleep(max(0.0, epoch_s + due_s - time.perf_counter()))
            sent.append(tasks.create_task(_one(ask, epoch_s, due_s)))
    return [task.result() for task in sent]


async def closed_loop(ask: Ask, concurrency: int, count: int) -> list[Measured]:
    """Keeps `concurrency` requests open until `count` have been sent."""
    epoch_s = time.perf_counter()
    left = itertools.repeat(None, count)
    measured: list[Measured] = []

    async def work() -> None:
        for _ in left:
            measured.append(await ask(epoch_s, time.perf_counter() - epoch_s))

    await asyncio.gather(*(work() for _ in range(min(concurrency, count))))
    return measured


async def _one(ask: Ask, epoch_s: float, due_s: float) -> Measured:
    return await ask(epoch_s, due_s)
