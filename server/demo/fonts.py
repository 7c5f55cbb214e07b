"""Four fonts that need no files: each glyph as a mask, so that a picture knows where it stands.

Capitals and digits only. `sans` is the scalable font inside Pillow and `typewriter` its old bitmap
font; `dots` is a 5 x 7 matrix and `segments` the digits of a pocket calculator.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

LETTER_FONTS = ("sans", "typewriter", "dots")
DIGIT_FONTS = (*LETTER_FONTS, "segments")

GAP = 0.14
"""Space between two glyphs, in heights of a capital."""

_MATRIX_COLUMNS = """
    3e5149453e 00427f4000 4261514946 2141454b31 1814127f10 2745454539 3c4a494930 0171090503
    3649494936 064949291e 7e1111117e 7f49494936 3e41414122 7f4141221c 7f49494941 7f09090901
    3e4149497a 7f0808087f 00417f4100 2040413f01 7f08142241 7f40404040 7f020c027f 7f0408107f
    3e4141413e 7f09090906 3e4151215e 7f09192946 4649494931 01017f0101 3f4040403f 1f2040201f
    3f4038403f 6314081463 0708700807 6151494543
"""
"""Of digits and letters: five columns of seven dots in hexadecimal, the lowest bit on top."""
_MATRIX = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", _MATRIX_COLUMNS.split(), strict=True))

_SEGMENT_NAMES = "abcdef bc abged abgcd fgbc afgcd afgedc abc abcdefg abcdfg"
_SEGMENTS = dict(zip("0123456789", _SEGMENT_NAMES.split(), strict=True))
_SEGMENT_BOXES = {
    "a": (0, 0, 10, 2),
    "b": (8, 0, 10, 9),
    "c": (8, 9, 10, 18),
    "d": (0, 16, 10, 18),
    "e": (0, 9, 2, 18),
    "f": (0, 0, 2, 9),
    "g": (0, 8, 10, 10),
}
"""Left, top, right and bottom on a field of 10 x 18."""


@lru_cache(maxsize=8192)
def glyph(font: str, character: str, height_px: int) -> Image.Image:
    """Mask of one character, `height_px` high and as wide as the font makes it."""
    if font == "sans":
        return _sans(character, height_px)
    if font == "typewriter":
        cell = _typewriter(character)
    elif font == "dots":
        cell = _dots(character)
    else:
        cell = _segments(character)
    width_px = max(2, round(cell.width * height_px / cell.height))
    smooth = font == "typewriter"
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return cell.resize((width_px, height_px), resampling)


def _sans(character: str, height_px: int) -> Image.Image:
    font = ImageFont.load_default(height_px / 0.71)
    left, _, right, _ = font.getbbox(character, anchor="ls")
    mask = Image.new("L", (max(2, round(right - left)), height_px))
    draw = ImageDraw.Draw(mask)
    draw.text((-left, height_px), character, fill=255, font=font, anchor="ls")
    return mask


@lru_cache(maxsize=64)
def _typewriter(character: str) -> Image.Image:
    cell = Image.new("L", (6, 11))
    font = ImageFont.load_default_imagefont()
    ImageDraw.Draw(cell).text((0, 0), character, fill=255, font=font)
    return cell.crop(cell.getbbox())


@lru_cache(maxsize=64)
def _dots(character: str) -> Image.Image:
    cell = Image.new("L", (5, 7))
    for x, column in enumerate(bytes.fromhex(_MATRIX[character])):
        for y in range(7):
            cell.putpixel((x, y), 255 * (column >> y & 1))
    return cell


@lru_cache(maxsize=16)
def _segments(character: str) -> Image.Image:
    cell = Image.new("L", (10, 18))
    for segment in _SEGMENTS[character]:
        cell.paste(255, _SEGMENT_BOXES[segment])
    return cell
