from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from server.bench.client import Measured
from server.bench.load import arrivals, closed_loop, open_loop


def seen(due_s: float) -> Measured:
    return Measured(sent_s=due_s, lag_s=0.0, end_to_end_s=1.0)


def test_arrivals_are_those_of_a_poisson_process() -> None:
    times = list(arrivals(rate=10, count=4000, seed=3))
    assert times == list(arrivals(rate=10, count=4000, seed=3))
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.1, rel=0.06)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.08), "of an exponential distribution"


def test_an_open_loop_does_not_wait_for_answers() -> None:
    async def main() -> list[Measured]:
        open_now = 0
        all_open = asyncio.Event()

        async def ask(_: float, due_s: float) -> Measured:
            nonlocal open_now
            open_now += 1
            if open_now == 5:
                all_open.set()
            await all_open.wait()
            return seen(due_s)

        return await open_loop(ask, rate=1000, count=5, seed=0)

    measured = asyncio.run(asyncio.wait_for(main(), 10))
    assert [one.sent_s for one in measured] == list(arrivals(1000, 5, 0))


def test_a_closed_loop_keeps_so_many_open() -> None:
    async def main() -> tuple[int, int]:
        open_now = most = done = 0

        async def ask(_: float, due_s: float) -> Measured:
            nonlocal open_now, most, done
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.001)
            open_now -= 1
            done += 1
            return seen(due_s)

        assert len(await closed_loop(ask, concurrency=3, count=10)) == 10
        return most, done

    assert asyncio.run(main()) == (3, 10)
