from __future__ import annotations

from benchmarks.eval_layouts import Cell, show


def test_the_table_compares_with_its_first_row() -> None:
    cells = [Cell("none", 1, 0.9), Cell("int8", 2, 0.897), Cell("int4", 1, 0.912)]
    assert show(cells).splitlines()[2:] == [
        "| none | 1 | 90.0 % | +0.0 |",
        "| int8 | 2 | 89.7 % | -0.3 |",
        "| int4 | 1 | 91.2 % | +1.2 |",
    ]
