from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import ApiError
from server.frontend.pixel_budget import PixelAllowance, PixelBudget


def test_what_fits_runs_together_and_more_waits() -> None:
    budget = PixelBudget(100)
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def decode(pixels: int) -> None:
        with budget.holding(pixels):
            inside.release()
            assert go_on.wait(10)

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(decode, 50) for _ in range(3)]
        assert inside.acquire(timeout=10) and inside.acquire(timeout=10)
        assert not inside.acquire(timeout=0.1)
        go_on.set()
        assert inside.acquire(timeout=10)
    for part in work:
        part.result()


def test_one_that_is_larger_than_all_goes_alone() -> None:
    budget = PixelBudget(10)
    with budget.holding(1000):
        pass


def test_room_comes_back_after_a_failure() -> None:
    budget = PixelBudget(10)
    with pytest.raises(ValueError, match="damaged"), budget.holding(10):
        raise ValueError("damaged")
    with budget.holding(10):
        pass


def test_a_request_may_have_so_many_and_each_picture_counts_once() -> None:
    allowance = PixelAllowance(100)
    allowance.take(60, "a")
    allowance.take(60, "a")
    allowance.take(40, "b")
    with pytest.raises(ApiError, match="more than 100 pixels together") as caught:
        allowance.take(1, "c")
    assert (caught.value.status, caught.value.param) == (400, "c")
