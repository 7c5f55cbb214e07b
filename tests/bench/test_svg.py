from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from server.bench.svg import Line, chart, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0), (0, 7.3), (0.001, 0.002), (3, 3), (0, 12345), (-2, 5)]
)
def test_ticks_are_few_round_and_around_the_range(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 3 <= len(found) <= 8
    steps = {round(after - before, 9) for before, after in pairwise(found)}
    assert len(steps) == 1


def test_points_lie_inside_the_picture_and_names_are_escaped() -> None:
    lines = [Line("a < b", [(1, 5), (4, 50)]), Line("c", [(2, 0)])]
    root = ET.fromstring(chart("T & U", "x", "y", lines))
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 3
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) <= 520
        assert 0 < float(circle.attrib["cy"]) <= 300
    texts = [text.text for text in root.findall(f"{space}text")]
    assert {"a < b", "c", "T & U"} <= set(texts)


def test_nothing_to_draw_is_an_empty_chart() -> None:
    ET.fromstring(chart("empty", "x", "y", []))
