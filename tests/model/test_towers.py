from __future__ import annotations

import pytest

from server.model.spec import parse_config
from server.model.towers import choose_vision_tp
from server.settings import Quantization
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)


@pytest.mark.parametrize(
    ("size", "memory_gb", "quantization", "chosen"),
    [
        (1, 141, "none", 1),
        (2, 141, "none", 1),
        (2, 80, "none", 1),
        (4, 48, "none", 2),
        (8, 24, "none", 4),
        (8, 24, "int4", 4),
        (8, 80, "none", 1),
        (7, 24, "none", 7),
        (2, 24, "none", 2),
    ],
)
def test_towers_over_a_slow_link_are_as_small_as_memory_allows(
    size: int, memory_gb: int, quantization: Quantization, chosen: int
) -> None:
    def choose(slow_link: bool) -> int:
        return choose_vision_tp(
            REAL,
            size,
            stages=1,
            slow_link=slow_link,
            memory_bytes=int(memory_gb * 0.9e9),
            bytes_per_value=2,
            quantization=quantization,
        )

    assert choose(slow_link=True) == chosen
    assert choose(slow_link=False) == size
