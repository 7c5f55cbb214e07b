"""What a process that decodes pictures is told and what it answers.

On its standard input a frame of JSON, a `PictureSetup`, then for each picture a frame with the
file; on its standard output frames of msgpack. A picture that may be decoded is answered twice:
first with its size, and with its pixels when a frame that says `GO_ON` has come back. So nothing
is unpacked before somebody who knows all pictures has agreed.
"""

from __future__ import annotations

from typing import IO, Literal

import msgspec

READY = b"ready"
"""Said once, before the first picture."""
GO_ON = b"go on"
LEAVE_IT = b"leave it"

LENGTH_BYTES = 8
FRAME_BYTES_MAX = 2**30


class PictureSetup(msgspec.Struct, frozen=True):
    """The same for all pictures of a process."""

    size: int
    """Side of the squares that the pictures become, in pixels."""
    mode: Literal["corrected", "reference"]
    max_bytes: int
    max_pixels: int
    memory_bytes_max: int
    processor_s: float
    """For one picture."""
    lower_priority: bool


class PictureSize(msgspec.Struct, frozen=True, tag=True):
    """What the header says, within the limits."""

    pixels: int


class PicturePixels(msgspec.Struct, frozen=True, tag=True):
    pixels: bytes
    """size x size x 3 bytes, RGB, row by row."""


class PictureRefusal(msgspec.Struct, frozen=True, tag=True):
    """What the client must change."""

    code: str
    message: str


PictureReply = PictureSize | PicturePixels | PictureRefusal


def write_frame(file: IO[bytes], data: bytes) -> None:
    file.write(len(data).to_bytes(LENGTH_BYTES, "little"))
    file.write(data)
    file.flush()


def read_frame(file: IO[bytes]) -> bytes | None:
    """None where the other side has ended, or says what cannot be meant."""
    length = file.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size_bytes = int.from_bytes(length, "little")
    if size_bytes > FRAME_BYTES_MAX:
        return None
    data = file.read(size_bytes)
    return data if len(data) == size_bytes else None
