from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors.numpy import load_file

from server.errors import ApiError
from server.frontend.images import ImageLimits, ImageMode, image_digest, load_image
from tests.frontend.bombs import png_chunk
from tests.golden import CASES, IMAGES

SIZE = 56
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=2**20)
PARAM = "messages[0].content[1].image_url.url"
GOLDEN = load_file(CASES / "images.safetensors")
CARD_PATH = sorted(key.split(".")[0] for key in GOLDEN if key.endswith(".resized_u8"))
COLOURS = ["rgb_square", "rgb_wide", "rgb_tall", "rgb_exact", "gray", "frame1"]


def golden_file(stem: str) -> Path:
    (path,) = IMAGES.glob(f"{stem}.*")
    return path


def load(data: bytes, mode: ImageMode = "corrected", size: int = SIZE) -> bytes:
    return load_image(data, size, mode, LIMITS, PARAM)


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        load_image(data, SIZE, "corrected", limits, PARAM)
    assert caught.value.status == 400
    assert caught.value.param == PARAM
    return caught.value


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode=None)


def squashed(image: Image.Image) -> bytes:
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC).tobytes()


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, extra: bytes = b""
) -> bytes:
    """A PNG file around raw rows, whatever its header claims."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def pixel(data: bytes) -> tuple[int, ...]:
    """Colour of a picture of one colour."""
    return tuple(load(data, size=1))


def test_there_are_golden_pictures_of_each_kind() -> None:
    assert set(CARD_PATH) == {*COLOURS, "rgba", "palette", "exif6"}


@pytest.mark.parametrize("stem", CARD_PATH)
def test_reference_mode_is_the_card_path(stem: str) -> None:
    pixels = load(golden_file(stem).read_bytes(), "reference")

    assert pixels == GOLDEN[f"{stem}.resized_u8"].tobytes()


@pytest.mark.parametrize("stem", COLOURS)
def test_corrected_mode_is_the_card_path_for_plain_colours(stem: str) -> None:
    pixels = load(golden_file(stem).read_bytes())

    assert pixels == GOLDEN[f"{stem}.resized_u8"].tobytes()


def test_corrected_mode_turns_a_palette_into_colours_first() -> None:
    pixels = load(golden_file("palette").read_bytes())

    assert pixels == GOLDEN["palette.resized_u8_rgb_first"].tobytes()


def test_corrected_mode_lays_transparency_over_white() -> None:
    rgba = np.asarray(Image.open(golden_file("rgba"))).astype(np.float64)
    alpha = rgba[..., 3:] / 255
    over_white = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    expected = np.frombuffer(squashed(Image.fromarray(over_white)), np.uint8)

    pixels = np.frombuffer(load(golden_file("rgba").read_bytes()), np.uint8)

    # Pillow blends in whole numbers.
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_corrected_mode_turns_pictures_upright(orientation: int, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise(), image_format, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        lying, upright = squashed(stored), squashed(ImageOps.exif_transpose(stored))

    assert load(data, "reference") == lying
    assert load(data) == upright
    assert (lying == upright) == (orientation == 1)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_damaged_metadata_do_not_spoil_a_picture(exif: bytes) -> None:
    assert load(encode(noise(), exif=exif)) == load(encode(noise()))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 0))), (255, 255, 255)),
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 255))), (10, 20, 30)),
        (encode(Image.new("LA", (3, 2), (10, 0))), (255, 255, 255)),
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 0)), "WEBP"), (255, 255, 255)),
        (encode(Image.new("L", (3, 2), 10), "GIF", transparency=10), (255, 255, 255)),
        (encode(Image.new("1", (3, 2), 1)), (255, 255, 255)),
        (encode(Image.new("CMYK", (16, 16), (255, 255, 0, 0)), "JPEG"), (0, 0, 255)),
        (
            png(1, 1, 8, 2, b"\0\1\2\3", extra=png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))),
            (255, 255, 255),
        ),
        (
            png(1, 1, 8, 2, b"\0\1\2\4", extra=png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))),
            (1, 2, 4),
        ),
        (
            png(1, 1, 8, 0, b"\0\7", extra=png_chunk(b"tRNS", struct.pack(">H", 7))),
            (255, 255, 255),
        ),
        (
            png(1, 1, 8, 3, b"\0\0", extra=png_chunk(b"PLTE", b"abc") + png_chunk(b"tRNS", b"\0")),
            (255, 255, 255),
        ),
        (png(1, 1, 16, 0, b"\0\x12\x34"), (0x12, 0x12, 0x12)),
        (png(1, 1, 16, 2, b"\0\x12\x34\x56\x78\x9a\xbc"), (0x12, 0x56, 0x9A)),
        (png(1, 1, 16, 4, b"\0\x12\x34\0\0"), (255, 255, 255)),
    ],
)
def test_every_kind_of_pixel_is_shown_as_a_viewer_shows_it(
    data: bytes, expected: tuple[int, ...]
) -> None:
    assert pixel(data) == pytest.approx(expected, abs=1)


def test_animations_show_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for image_format in ("GIF", "PNG", "WEBP"):
        data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
        assert pixel(data) == pytest.approx((255, 0, 0), abs=2)


def test_a_camera_file_with_a_preview_shows_the_picture() -> None:
    data = encode(noise(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])

    assert load(data) == load(encode(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "empty_image_file", "empty"),
        (b"hello", "invalid_image_format", "JPEG, PNG, WEBP or GIF"),
        (b"RIFF\0\0\0\0WAVEfmt ", "invalid_image_format", "JPEG, PNG, WEBP or GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_media_type", "SVG"),
        (encode(noise(), "BMP"), "unsupported_image_media_type", "BMP"),
        (encode(noise(), "TIFF"), "unsupported_image_media_type", "TIFF"),
        (b"\0\0\0\x18ftypheic", "unsupported_image_media_type", "HEIC"),
        (b"%PDF-1.7", "unsupported_image_media_type", "PDF"),
        (png(60_000, 60_000, 8, 0, b""), "image_too_large", "60000 x 60000"),
        (png(0xFFFFFFF, 0xFFFFFFF, 8, 0, b""), "image_too_large", "pixels"),
        (png(20_000, 1, 8, 0, b""), "image_too_large", "16384 along a side"),
        (png(201, 1, 8, 0, b""), "invalid_image", "200 times"),
        (png(1, 201, 8, 0, b""), "invalid_image", "200 times"),
        (png(0, 5, 8, 0, b""), "image_parse_error", "damaged"),
        (png(4, 4, 8, 3, b"\0\0\0\0\0" * 4), "image_parse_error", "damaged"),
        (png(50, 50, 8, 2, b"")[:60], "image_parse_error", "truncated"),
        (b"\xff\xd8\xff", "image_parse_error", "truncated"),
        (b"GIF89a", "image_parse_error", "truncated"),
    ],
)
def test_hostile_files_are_refused(data: bytes, code: str, message: str) -> None:
    error = refusal(data)

    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_short_is_refused(image_format: str) -> None:
    data = encode(noise(), image_format)

    for length in range(1, len(data) * 9 // 10, len(data) // 20):
        assert refusal(data[:length]).code in {"image_parse_error", "invalid_image_format"}


def test_the_limits_are_the_operators() -> None:
    data = encode(noise(40, 30))

    assert load_image(data, SIZE, "corrected", ImageLimits(len(data), 1200), None)
    error = refusal(data, ImageLimits(len(data) - 1, 1200))
    assert (error.code, str(len(data) - 1) in error.message) == ("image_file_too_large", True)
    error = refusal(data, ImageLimits(len(data), 1199))
    assert (error.code, "1199 pixels" in error.message) == ("image_too_large", True)


def test_a_jpeg_with_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan costs a pass over the whole picture: these would take minutes."""
    out = io.BytesIO()
    noise(64, 64).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    assert load(data)
    begin = data.rindex(b"\xff\xda")
    error = refusal(data[:-2] + data[begin:-2] * 101 + data[-2:], ImageLimits(2**24, 2**20))

    assert error.code == "invalid_image"
    assert "100 progressive scans" in error.message


def test_what_follows_a_jpeg_is_no_scan() -> None:
    """Phones append a film."""
    assert load(encode(noise(), "JPEG") + b"\xff\xda" * 1000)


def test_a_picture_above_pillows_own_limit_can_be_allowed() -> None:
    limits = ImageLimits(max_bytes=2**20, max_pixels=10**9, max_side_pixels=10**5)

    assert refusal(png(15_000, 15_000, 8, 0, b""), limits).code == "image_parse_error"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [encode(noise(), image_format) for image_format in ("PNG", "JPEG", "WEBP", "GIF")]
    ),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(["corrected", "reference"]),
)
def test_damaged_files_are_pixels_or_a_clear_error(
    data: bytes, damage: list[tuple[int, int]], mode: ImageMode
) -> None:
    damaged = bytearray(data)
    for position, value in damage:
        damaged[position % len(data)] = value
    limits = ImageLimits(max_bytes=2**20, max_pixels=2**20)
    try:
        pixels = load_image(bytes(damaged), SIZE, mode, limits, PARAM)
    except ApiError as error:
        assert error.status == 400
        assert "0x" not in error.message
    else:
        assert len(pixels) == SIZE * SIZE * 3


def test_digests_tell_pixels_apart() -> None:
    one, other = load(encode(noise())), load(encode(noise(30, 40)))

    assert len(image_digest(one)) == 16
    assert image_digest(one) == image_digest(bytes(one))
    assert len({image_digest(pixels) for pixels in (one, other, one[:-3], one + b"\0", b"")}) == 5
