from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.frontend.video_sampling import Sampling, frame_numbers
from tests.golden import video_sampling


@pytest.mark.parametrize("case", video_sampling(), ids=str)
def test_the_frames_that_the_model_cards_code_takes(case: dict[str, Any]) -> None:
    bound = case["bound"]
    if case["first_idx"]:  # the card's code can leave out frames at the start as well
        bound = [max(bound[0], case["first_idx"] / case["fps"]), bound[1]]
    sampling = Sampling(case["num_segments"], tuple(bound) if bound else None)
    numbers = frame_numbers(sampling, case["max_frame"] + 1, case["fps"])
    assert numbers == case["frame_indices"]


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 128), st.integers(1, 5000), st.floats(0, 300), st.floats(0.01, 300))
def test_every_segment_has_a_frame_that_exists(
    segments: int, count: int, begin_s: float, length_s: float
) -> None:
    whole = frame_numbers(Sampling(segments), count, 25)
    part = frame_numbers(Sampling(segments, (begin_s, begin_s + length_s)), count, 25)
    assert whole is not None
    for numbers in (whole, part or [0] * segments):
        assert len(numbers) == segments
        assert numbers == sorted(numbers)
        assert numbers[0] >= 0 and numbers[-1] < count


def test_a_bound_behind_the_end_takes_nothing() -> None:
    assert frame_numbers(Sampling(8, (4.0, 5.0)), 100, 25) is None
    assert frame_numbers(Sampling(8, (3.96, 5.0)), 100, 25) == [99] * 8
