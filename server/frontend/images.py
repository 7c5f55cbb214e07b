"""A picture from what a client sent to the uint8 pixels that the model sees.

Nothing is decoded before its size is known from the header and allowed, the format is told by the
content alone, and no word of the decoder reaches a client. Whole pictures are squashed to a square:
the model was trained that way. For strangers' pictures this runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
from dataclasses import dataclass
from typing import Literal

from PIL import Image, UnidentifiedImageError

from server.errors import ApiError, invalid

# Pillow's own limit is one for the process and below what an operator may allow; `ImageLimits` is
# checked for every picture instead, also before it is decoded.
Image.MAX_IMAGE_PIXELS = None

ImageMode = Literal["corrected", "reference"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
SUPPORTED = "JPEG, PNG, WEBP or GIF"

JPEG_SIGNATURE = b"\xff\xd8\xff"
GIF_SIGNATURE = b"GIF8"
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""The marker, the length and the number of components, which determine each other."""
JPEG_SCANS_MAX = 100

EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture with this EXIF orientation upright."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    max_bytes: int
    max_pixels: int
    max_side_pixels: int = 16_384
    max_aspect: int = 200
    """Longer side over the shorter one."""


def load_image(
    data: bytes,
    size: int,
    mode: ImageMode,
    limits: ImageLimits,
    param: str | None = None,
) -> bytes:
    """Decodes a picture file and squashes it to `size` x `size`.

    Args:
        mode: reference does what the model card's code does; corrected gives the same for plain
            RGB and also applies EXIF orientation, lays transparency over white and scales 16 bits.
        param: path of the request's field, for errors.

    Returns:
        size * size * 3 bytes, RGB, row by row.

    Raises:
        ApiError: 400 with the code that says what is wrong with the picture.
    """
    with open_image(data, limits, param) as image:
        return squash(image, size, mode, param)


def open_image(data: bytes, limits: ImageLimits, param: str | None = None) -> Image.Image:
    """The picture as its header describes it, within the limits, with its pixels still packed.

    Raises:
        ApiError: as `load_image`.
    """
    if not data:
        raise invalid("The image is empty.", param=param, code="empty_image_file")
    if len(data) > limits.max_bytes:
        raise invalid(
            f"The image file is larger than the limit of {limits.max_bytes} bytes.",
            param=param,
            code="image_file_too_large",
        )
    _check_scans(data, param)
    image = _open(data, limits, param)
    try:
        _check_size(*image.size, limits, param)
    except ApiError:
        image.close()
        raise
    return image


def squash(image: Image.Image, size: int, mode: ImageMode, param: str | None = None) -> bytes:
    """Decodes an opened picture; arguments, result and errors are those of `load_image`."""
    try:
        seen = _as_seen(image) if mode == "corrected" else image
        return seen.resize((size, size)).convert("RGB").tobytes()
    except MemoryError:
        raise invalid(
            "Decoding the image takes more memory than this server gives a picture; send a "
            "smaller one.",
            param=param,
            code="image_too_large",
        ) from None
    except Exception:
        raise damaged(param) from None


def image_digest(pixels: bytes) -> bytes:
    """16 bytes that tell pictures apart, over their pixels and how many there are."""
    digest = hashlib.blake2b(len(pixels).to_bytes(8, "little"), digest_size=16)
    digest.update(pixels)
    return digest.digest()


def _open(data: bytes, limits: ImageLimits, param: str | None) -> Image.Image:
    """Reads the header; the pixels stay packed."""
    try:
        if data.startswith(GIF_SIGNATURE):
            return _open_gif(data, limits)
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_many_pixels(limits, param) from None
    except UnidentifiedImageError:
        raise _unidentified(data, param) from None
    except Exception:  # the format's own reader gave up, with whatever it happened to raise
        raise damaged(param) from None


def _open_gif(data: bytes, limits: ImageLimits) -> Image.Image:
    """Pillow fills a picture for the first frame's background while it opens the file, so its own
    bound has to come before ours. It is one for the process: not for several threads at a time."""
    bound = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=("GIF",))
    except Image.DecompressionBombWarning as warning:
        raise Image.DecompressionBombError from warning
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _too_many_pixels(limits: ImageLimits, param: str | None) -> ApiError:
    return invalid(
        f"The image has more than {limits.max_pixels} pixels, the limit of this server.",
        param=param,
        code="image_too_large",
    )


def _check_scans(data: bytes, param: str | None) -> None:
    """A progressive JPEG paints the whole picture again for each of its scans, and a small file
    has room for thousands."""
    if not data.startswith(JPEG_SIGNATURE):
        return
    if sum(1 for _ in itertools.islice(JPEG_SCAN.finditer(data), JPEG_SCANS_MAX + 1)) > (
        JPEG_SCANS_MAX
    ):
        raise invalid(
            f"The image has more than {JPEG_SCANS_MAX} progressive scans, the limit of this "
            "server.",
            param=param,
            code="invalid_image",
        )


def _check_size(width: int, height: int, limits: ImageLimits, param: str | None) -> None:
    if width * height > limits.max_pixels or max(width, height) > limits.max_side_pixels:
        raise invalid(
            f"The image is {width} x {height} pixels; the limits are {limits.max_pixels} pixels "
            f"and {limits.max_side_pixels} along a side.",
            param=param,
            code="image_too_large",
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise invalid(
            f"The image is {width} x {height} pixels; one side may be at most "
            f"{limits.max_aspect} times the other.",
            param=param,
            code="invalid_image",
        )


def _as_seen(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it, in colours that can be resized."""
    if image.mode in ("RGB", "L") and not image.has_transparency_data:
        return _upright(image, image)
    if image.mode == "I;16":
        # Pillow would cut every value above 255 instead of scaling.
        return _upright(image, image.point(lambda value: value / 256).convert("L"))
    if not image.has_transparency_data:
        return _upright(image, image.convert("RGB"))
    pixels = image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(pixels, mask=pixels)
    return _upright(image, paper)


def _upright(source: Image.Image, pixels: Image.Image) -> Image.Image:
    """Turns the pixels of `source` as its EXIF data says."""
    try:
        orientation = source.getexif().get(EXIF_ORIENTATION)
    except Exception:  # damaged metadata do not spoil a picture
        return pixels
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else pixels.transpose(turn)


def damaged(param: str | None) -> ApiError:
    return invalid("The image is truncated or damaged.", param=param, code="image_parse_error")


SUPPORTED_SIGNATURES = ((0, JPEG_SIGNATURE), (0, b"\x89PNG"), (0, GIF_SIGNATURE), (8, b"WEBP"))
OTHER_SIGNATURES = (
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
    (0, b"%PDF", "PDF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
)


def _unidentified(data: bytes, param: str | None) -> ApiError:
    if any(data.startswith(signature, offset) for offset, signature in SUPPORTED_SIGNATURES):
        return damaged(param)
    for offset, signature, name in OTHER_SIGNATURES:
        if data.startswith(signature, offset):
            return invalid(
                f"{name} images are not supported; send {SUPPORTED}.",
                param=param,
                code="unsupported_image_media_type",
            )
    return invalid(
        f"The data is not a {SUPPORTED} image.", param=param, code="invalid_image_format"
    )
