from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.eval_demo import Result
from benchmarks.eval_ways import WAYS, Row, Way, compare, show
from server.cli import build_parser
from server.demo.exam import draw_exam
from server.settings import Settings


def test_the_table_compares_with_its_first_row() -> None:
    rows = [Row("alone", 0.9, 1.0), Row("int8", 0.897, 0.99), Row("int4", 0.912, 0.5)]
    assert show(rows).splitlines()[2:] == [
        "| alone | 90.0% | +0.0 | 100.0% |",
        "| int8 | 89.7% | -0.3 | 99.0% |",
        "| int4 | 91.2% | +1.2 | 50.0% |",
    ]


def test_a_row_counts_right_answers_and_equal_ones() -> None:
    first = [Result(question, "a", right=True) for question in draw_exam(20, size_px=64)]
    other = [replace(result, answer="b", right=False) for result in first[:10]] + first[10:]
    assert compare("same", first, first) == Row("same", 1.0, 1.0)
    row = compare("other", other, first)
    assert row.same == 0.5
    assert row.right < 1


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_each_way_is_one_that_the_daemon_knows(way: Way) -> None:
    given = vars(build_parser().parse_args(["serve", *way.flags]))
    assert Settings(**{name: given[name] for name in Settings.model_fields if name in given})
