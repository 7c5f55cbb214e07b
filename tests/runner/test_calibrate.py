from __future__ import annotations

from server.model.internvl import InternVLChat
from server.runner.calibrate import Prefill, budget_for, measured_budget
from tests.engine.harness import Harness
from tests.runner.requests import ask_golden, make_runner


def test_the_line_through_two_prefills_gives_the_budget() -> None:
    short, long = Prefill(64, 0.014), Prefill(256, 0.110)  # 0.5 ms a token
    assert budget_for(0.2, short, long, smallest=40) == 432
    assert budget_for(0.05, short, long, smallest=40) == 128
    assert budget_for(0.001, short, long, smallest=40) == 40


def test_the_budget_stays_near_what_was_measured() -> None:
    assert budget_for(0.05, Prefill(64, 0.01), Prefill(256, 0.01), smallest=40) == 512
    assert budget_for(9.0, Prefill(64, 0.01), Prefill(256, 0.02), smallest=40) == 512
    assert budget_for(9.0, Prefill(64, 0.01), Prefill(256, 0.02), smallest=1000) == 1000


def test_measuring_leaves_no_trace(model: InternVLChat) -> None:
    runner = make_runner(model, slots=2, kv_blocks=8, max_model_len=128)
    assert measured_budget(runner, 0.05) >= 34
    harness = Harness(runner)
    asked = ask_golden("image_single")
    harness.submit(asked.numbered(0), asked.pixels)
    harness.run()
    runner.close()
    assert len(harness.tokens(0)) == 32
