"""The process that decodes pictures, one after the other.

Its standard input and output are all that it has; see `picture_messages`. When the input closes,
whoever started it is gone, and it ends.
"""

from __future__ import annotations

import sys
from typing import IO

import msgspec
from PIL import Image

from server.errors import ApiError
from server.frontend.confinement import bound_processor_time, give_up_rights
from server.frontend.images import ImageLimits, open_image, squash
from server.frontend.picture_messages import (
    GO_ON,
    READY,
    PicturePixels,
    PictureRefusal,
    PictureReply,
    PictureSetup,
    PictureSize,
    read_frame,
    write_frame,
)


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = msgspec.json.decode(read_frame(source) or b"", type=PictureSetup)
    Image.preinit()  # what decodes is loaded before memory is bounded
    give_up_rights(setup.memory_bytes_max, lower_priority=setup.lower_priority)
    write_frame(sink, READY)
    while (data := read_frame(source)) is not None:
        bound_processor_time(setup.processor_s)
        try:
            _answer(data, setup, source, sink)
        except ApiError as failure:
            _say(sink, PictureRefusal(failure.code, failure.message))


def _answer(data: bytes, setup: PictureSetup, source: IO[bytes], sink: IO[bytes]) -> None:
    limits = ImageLimits(setup.max_bytes, setup.max_pixels)
    with open_image(data, limits) as image:
        _say(sink, PictureSize(image.width * image.height))
        if read_frame(source) == GO_ON:
            _say(sink, PicturePixels(squash(image, setup.size, setup.mode)))


def _say(sink: IO[bytes], reply: PictureReply) -> None:
    write_frame(sink, msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    main()
