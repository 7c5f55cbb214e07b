"""Small videos made at run time; the encoders of PyAV's wheel give the same bytes every time."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

LOSSLESS = ("libx264rgb", "mp4", "rgb24", {"qp": "0"})
"""Frames come back as the very pixels that went in."""

VP9 = ("libvpx-vp9", "webm", "gbrp", {"lossless": "1"})
"""Lossless too, in another container."""

Codec = tuple[str, str, str, Mapping[str, str]]
"""Encoder, container, pixel format, options."""


def encode(
    frames: Sequence[Image.Image], codec: Codec = LOSSLESS, *, rate: int = 25, key_every: int = 12
) -> bytes:
    """A video file of these frames; their sides must be even."""
    name, container_format, pixel_format, options = codec
    out = io.BytesIO()
    with av.open(out, "w", format=container_format, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(name, rate=rate, options=dict(options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = key_every
        stream.codec_context.thread_count = 1
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def counted(count: int, width: int = 32, height: int = 16) -> list[Image.Image]:
    """Plain frames whose colour tells their number."""
    return [Image.new("RGB", (width, height), (n % 256, n // 256, 128)) for n in range(count)]


def number_of(pixels: bytes) -> int:
    """The number of a frame of `counted`."""
    return pixels[0] + 256 * pixels[1]


def video_part(data: bytes) -> dict[str, Any]:
    """A content part with this file."""
    url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    return {"type": "video_url", "video_url": {"url": url}}
