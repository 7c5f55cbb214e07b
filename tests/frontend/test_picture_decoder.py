from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest

from server.errors import ApiError, invalid
from server.frontend import picture_decoder
from server.frontend.images import ImageLimits, load_image
from server.frontend.picture_decoder import PictureDecoder, TooSlow
from server.frontend.picture_messages import PictureSetup
from tests.frontend.bombs import gif_of, png_of_chunks
from tests.golden import IMAGES

SNAPSHOT = (IMAGES / "rgb_square.png").read_bytes()
LIMITS = ImageLimits(2**24, 2**20)
PIXELS = load_image(SNAPSHOT, 8, "corrected", LIMITS)


def setup(processor_s: float = 20.0, memory_bytes: int = 2**29) -> PictureSetup:
    return PictureSetup(
        8, "corrected", LIMITS.max_bytes, LIMITS.max_pixels, memory_bytes, processor_s, True
    )


@contextmanager
def decoder(of: PictureSetup | None = None) -> Iterator[PictureDecoder]:
    decoder = PictureDecoder(of or setup())
    try:
        yield decoder
    finally:
        decoder.close()
    assert programs() == []


def programs() -> list[psutil.Process]:
    """The processes that decode now."""
    children = psutil.Process().children()
    return [child for child in children if picture_decoder.COMMAND[-1] in child.cmdline()]


def decode(decoder: PictureDecoder, data: bytes = SNAPSHOT) -> bytes:
    return decoder.decode(data, lambda pixels: nullcontext())


def test_one_process_decodes_what_comes() -> None:
    with decoder() as one:
        assert decode(one) == PIXELS
        (process,) = programs()
        with pytest.raises(ApiError) as caught:
            decode(one, b"hello")
        assert (caught.value.status, caught.value.code) == (400, "invalid_image_format")
        assert decode(one) == PIXELS
        assert programs() == [process]


def test_nothing_is_unpacked_that_was_not_admitted() -> None:
    def refuse(pixels: int) -> nullcontext[None]:
        raise invalid(f"{pixels} are too many", param="x")

    with decoder() as one:
        with pytest.raises(ApiError, match="are too many"):
            one.decode(SNAPSHOT, refuse)
        assert decode(one) == PIXELS


def test_a_bomb_ends_with_its_time_and_the_next_picture_is_right() -> None:
    with decoder(setup(processor_s=0.3)) as one:
        assert decode(one) == PIXELS
        (process,) = programs()
        with pytest.raises(TooSlow):
            decode(one, png_of_chunks(200_000))
        assert not process.is_running()
        assert decode(one) == PIXELS


def test_waiting_to_be_admitted_takes_no_time_of_the_picture() -> None:
    @contextmanager
    def late(pixels: int) -> Iterator[None]:
        threading.Event().wait(0.5)
        yield

    with decoder(setup(processor_s=0.3)) as one:
        assert one.decode(SNAPSHOT, late) == PIXELS


def test_memory_is_bounded() -> None:
    def attack(code: str) -> str:
        """What a process says that has given up what decoders give up."""
        start = "from server.frontend.confinement import give_up_rights; give_up_rights(2**29)"
        command = [sys.executable, "-P", "-c", f"{start}\n{code}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert "MemoryError" in attack("bytearray(2**29)")
    with decoder(setup(memory_bytes=60 * 2**20)) as one, pytest.raises(ApiError) as caught:
        decode(one, SNAPSHOT + bytes(2**26))
    assert caught.value.status == 400


def program(code: str) -> tuple[str, ...]:
    """In the place of the one that decodes; it says that it is ready and takes the first frame."""
    begin = (
        "import os, sys, time\n"
        "from server.frontend.picture_messages import *\n"
        "read_frame(sys.stdin.buffer)\n"
        "write_frame(sys.stdout.buffer, READY)\n"
    )
    return (sys.executable, "-P", "-c", begin + code)


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), 11)",
        "raise SystemExit(1)",
        "print('what?')",
        "print('what?' * 1000)",
        "write_frame(sys.stdout.buffer, b'what?')",
        "write_frame(sys.stdout.buffer, msgspec.msgpack.encode(PicturePixels(b'few')))",
    ],
)
def test_a_crash_costs_one_picture(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    command = picture_decoder.COMMAND
    with decoder() as one:
        monkeypatch.setattr(picture_decoder, "COMMAND", program(code))
        with pytest.raises(ApiError) as caught:
            decode(one)
        assert (caught.value.status, caught.value.code) == (400, "image_parse_error")
        monkeypatch.setattr(picture_decoder, "COMMAND", command)
        assert decode(one) == PIXELS


def test_a_program_that_does_not_start_is_no_damaged_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture_decoder, "COMMAND", (sys.executable, "-c", "print('what?')"))
    with decoder() as one, pytest.raises(RuntimeError, match="does not start"):
        decode(one)


def test_one_that_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_decoder, "STANDSTILL_S", 2.0)
    monkeypatch.setattr(picture_decoder, "COMMAND", program("time.sleep(60)"))
    with decoder(setup(processor_s=0.1)) as one, pytest.raises(TooSlow):
        decode(one)


def test_processes_are_replaced_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_decoder, "PICTURES_MAX", 2)
    with decoder() as one:
        seen = set()
        for _ in range(3):
            assert decode(one) == PIXELS
            seen |= {process.pid for process in programs()}
    assert len(seen) == 2


def test_closing_does_not_wait_for_a_bomb() -> None:
    with decoder(setup(processor_s=60)) as one:
        failures: list[ApiError] = []

        def work() -> None:
            try:
                decode(one, png_of_chunks(1_300_000))
            except ApiError as failure:
                failures.append(failure)

        thread = threading.Thread(target=work)
        assert decode(one) == PIXELS
        thread.start()
        threading.Event().wait(0.2)
        one.close()
        thread.join(10)
    assert [failure.status for failure in failures] == [503]


def test_the_process_ends_with_its_input(tmp_path: Path) -> None:
    with decoder() as one:
        decode(one)
        (process,) = programs()
        assert process.nice() > psutil.Process().nice()
        stdin = one._process and one._process.stdin
        assert stdin
        stdin.close()
        assert process.wait(10) == 0


def test_a_gif_is_bounded_before_pillow_fills_its_background() -> None:
    with decoder() as one, pytest.raises(ApiError) as caught:
        decode(one, gif_of(65_535, 65_535))
    assert caught.value.code == "image_too_large"
    assert str(LIMITS.max_pixels) in caught.value.message
