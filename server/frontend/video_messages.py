"""What a process that decodes a video is told and what it answers.

On its standard input one line of JSON, a `VideoJob`, then the file; on its standard output one
msgpack message.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.frontend.video_sampling import Sampling


class VideoJob(msgspec.Struct, frozen=True):
    size: int
    """Side of the squares that the frames become, in pixels."""
    sampling: Sampling
    max_pixels: int
    """Of one frame as it is stored."""
    processor_s: float


class VideoFrames(msgspec.Struct, frozen=True, tag=True):
    frames: list[bytes]
    """size x size x 3 bytes each, RGB, row by row; as many as segments."""


class VideoRefusal(msgspec.Struct, frozen=True, tag=True):
    """What the client must change."""

    code: str
    message: str
    about: Literal["file", "bound"] = "file"


VideoReply = VideoFrames | VideoRefusal


class VideoError(Exception):
    """Raised inside the process; carries its answer."""

    def __init__(self, refusal: VideoRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def damaged() -> VideoError:
    return VideoError(VideoRefusal("video_parse_error", "The video is truncated or damaged."))
