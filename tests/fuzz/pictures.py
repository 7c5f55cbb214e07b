"""Any bytes are a picture of the right size or a refusal in our own words."""

from __future__ import annotations

import io
from typing import get_args

from PIL import Image

from server.errors import ApiError
from server.frontend.images import FORMATS, ImageLimits, ImageMode, load_image
from tests.frontend.bombs import png_of_chunks
from tests.fuzz.target import Target
from tests.golden import IMAGES

SIZE = 8
LIMITS = ImageLimits(max_bytes=2**16, max_pixels=2**14)


def try_one(data: bytes) -> None:
    for mode in get_args(ImageMode):
        try:
            pixels = load_image(data, SIZE, mode, LIMITS, "x")
        except ApiError as failure:
            assert (failure.status, failure.param) == (400, "x")
            assert "0x" not in failure.message
        else:
            assert len(pixels) == SIZE * SIZE * 3


def _seeds() -> list[bytes]:
    seeds = [png_of_chunks(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "L", "P", "CMYK", "I;16"):
        for image_format in FORMATS:
            out = io.BytesIO()
            image = Image.new(mode, (6, 4), 1)
            try:
                image.save(out, image_format, exif=exif)
            except (OSError, ValueError):
                continue  # not every format has every mode
            seeds.append(out.getvalue())
    small = (path.read_bytes() for path in sorted(IMAGES.iterdir()))
    return [*seeds, *(data for data in small if len(data) < 8192)]


TARGET = Target("pictures", try_one, _seeds())
