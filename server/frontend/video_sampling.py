"""Which frames of a video the model sees: the model card's rule.

The clip is cut into equal segments and one frame is taken near the middle of each, so there are
always as many frames as segments; in a short clip the same frame stands for several. Rounding is to
even, as the card's numpy does it.
"""

from __future__ import annotations

from dataclasses import dataclass

SEGMENTS_DEFAULT = 8
"""The card's example; its function's own default of 32 exceeds the model's context."""

SEGMENTS_MAX = 128


@dataclass(frozen=True, slots=True)
class Sampling:
    segments: int = SEGMENTS_DEFAULT
    bound_s: tuple[float, float] | None = None
    """The part of the video to look at, from and to."""


def frame_numbers(sampling: Sampling, frame_count: int, fps: float) -> list[int] | None:
    """Frames to take, counted from 0; None where the bound begins behind the last frame.

    Args:
        fps: average frames per second; used with a bound only.
    """
    first, last = 0, frame_count - 1
    if sampling.bound_s is not None:
        begin_s, end_s = sampling.bound_s
        first, last = max(first, round(begin_s * fps)), min(last, round(end_s * fps))
    if first > last:
        return None
    length = (last - first) / sampling.segments
    return [int(first + length / 2 + round(length * k)) for k in range(sampling.segments)]
