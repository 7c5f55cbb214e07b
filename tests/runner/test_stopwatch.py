from __future__ import annotations

import time

import torch

from server.runner.stopwatch import Stopwatch


def test_it_adds_up_what_is_inside() -> None:
    watch = Stopwatch(torch.device("cpu"))
    assert watch.seconds() == 0
    for _ in range(2):
        with watch.running():
            time.sleep(0.002)
        time.sleep(0.01)
    inside_s = watch.seconds()
    assert inside_s >= 0.004
    time.sleep(0.002)
    assert watch.seconds() == inside_s
