from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from server.errors import ApiError
from server.frontend import pictures
from server.frontend.images import ImageLimits, load_image
from server.frontend.pictures import PictureReader
from tests.frontend.bombs import png_of_chunks
from tests.golden import IMAGES

SNAPSHOT = (IMAGES / "rgb_square.png").read_bytes()
LIMITS = ImageLimits(2**24, 2**20)
PIXELS = load_image(SNAPSHOT, 8, "corrected", LIMITS)
BOMB = png_of_chunks(400_000)


@contextmanager
def reader(processor_s: float, processes: int = 1) -> Iterator[PictureReader]:
    reader = PictureReader(8, "corrected", LIMITS, processor_s, processes)
    try:
        yield reader
    finally:
        reader.close()


async def read(reader: PictureReader, data: bytes = SNAPSHOT) -> bytes:
    return await reader.read(data, lambda pixels: nullcontext(), "messages[0]")


def test_what_takes_longer_than_its_time_is_refused() -> None:
    with reader(0.2) as one:
        with pytest.raises(ApiError) as caught:
            asyncio.run(read(one, BOMB))
        assert asyncio.run(read(one)) == PIXELS
    failure = caught.value
    assert (failure.status, failure.code, failure.param) == (400, "invalid_image", "messages[0]")
    assert "0.2 s" in failure.message


def test_what_is_slow_gets_its_time_in_the_slow_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "QUICK_S", 0.1)
    with reader(20) as one:
        assert len(asyncio.run(read(one, png_of_chunks(50_000)))) == len(PIXELS)


def test_a_refusal_names_the_field() -> None:
    with reader(5) as one, pytest.raises(ApiError) as caught:
        asyncio.run(read(one, b"hello"))
    assert (caught.value.code, caught.value.param) == ("invalid_image_format", "messages[0]")


def test_bombs_do_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one process in each lane and more bombs than that, a snapshot does not wait for them."""
    monkeypatch.setattr(pictures, "QUICK_S", 0.1)

    async def run(reader: PictureReader) -> list[str]:
        ended: list[str] = []

        async def one(name: str, data: bytes) -> None:
            try:
                await read(reader, data)
            except ApiError:
                name += " refused"
            ended.append(name)

        bombs = [asyncio.ensure_future(one("bomb", BOMB)) for _ in range(3)]
        await asyncio.sleep(0)
        await one("snapshot", SNAPSHOT)
        for bomb in bombs:
            bomb.cancel()
        await asyncio.gather(*bombs, return_exceptions=True)
        return ended

    with reader(3) as one:
        assert asyncio.run(run(one)) == ["snapshot"]
