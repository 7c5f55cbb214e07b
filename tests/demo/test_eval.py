"""The demo model over HTTP, as `benchmarks.eval_demo` measures it, with fewer questions.

What is asked was never seen in training. A daemon that does not look at the pictures falls below
the bounds here.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.eval_demo import Result, ask_all, shares, show, shuffled
from server.demo.exam import SCORED, Question, draw_exam
from server.demo.layout import write_json
from server.demo.train import SHAPE
from server.model.locate import DEMO
from tests.e2e.daemon import Daemon, running

LEAST = 0.95
"""Share of right answers; the whole exam gives 0.97 and more."""
GUESSED = 0.45
"""Share that guessing does not reach."""
ASTRAY = 0.65
"""Share of right places that is not reached where rows and columns are swapped: those on the
diagonal stay right."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(model=None) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def exam() -> list[Question]:
    questions = draw_exam(200, size_px=SHAPE.image_size)
    return [question for question in questions if question.category in SCORED]


def ask(daemon: Daemon, exam: list[Question], *, stream: bool = False) -> list[Result]:
    return asyncio.run(ask_all(daemon.url, exam, stream=stream, concurrency=16))


def test_it_sees(daemon: Daemon, exam: list[Question]) -> None:
    table = shares(ask(daemon, exam))
    assert table["all scored"]["both"] >= LEAST, show(table)


def test_streamed_answers_are_the_same(daemon: Daemon, exam: list[Question]) -> None:
    part = exam[:30]
    streamed = ask(daemon, part, stream=True)
    assert [result.answer for result in streamed] == [result.answer for result in ask(daemon, part)]


def test_with_other_pictures_it_can_only_guess(daemon: Daemon, exam: list[Question]) -> None:
    table = shares(ask(daemon, shuffled(exam)))
    assert table["all scored"]["both"] < GUESSED, show(table)


def test_tokens_in_the_other_order_lead_astray(tmp_path: Path) -> None:
    folder = tmp_path / "v2"
    shutil.copytree(DEMO, folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"ps_version": "v2"})
    questions = [q for q in draw_exam(400, size_px=SHAPE.image_size) if q.category == "position"]
    with running(model=folder) as daemon:
        table = shares(ask(daemon, questions))
    assert table["position"]["both"] < ASTRAY, show(table)
