from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest

from server.errors import ApiError
from server.frontend import video
from server.frontend.video import BOUND_PARAM, VideoLimits, VideoReader, video_is_installed
from server.frontend.video_sampling import Sampling
from tests.videos import counted, encode, number_of

CLIP = encode(counted(100))
PARAM = "messages[0].content[0].video_url.url"
SLEEP = "import time; time.sleep(60)"


def reader(timeout_s: float = 20, processes: int = 2) -> VideoReader:
    return VideoReader(8, VideoLimits(10**6, timeout_s), processes)


def refusal(
    data: bytes, bound_s: tuple[float, float] | None = None, timeout_s: float = 20
) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asyncio.run(reader(timeout_s).read(data, Sampling(4, bound_s), PARAM))
    assert caught.value.status == 400
    return caught.value


def programs() -> list[psutil.Process]:
    """The processes that decode now."""
    children = psutil.Process().children()
    return [child for child in children if video.COMMAND[-1] in child.cmdline()]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets another program take the place of the one that decodes."""
    return lambda code: monkeypatch.setattr(video, "COMMAND", (sys.executable, "-c", code))


def test_the_frames_of_a_video() -> None:
    frames = asyncio.run(reader().read(CLIP, Sampling(4, (1, 2)), PARAM))
    assert list(map(number_of, frames)) == [28, 34, 40, 47]
    assert not programs()


def test_a_refusal_names_the_field() -> None:
    error = refusal(b"nothing")
    assert (error.code, error.param) == ("invalid_video_format", PARAM)
    error = refusal(CLIP, (5, 6))
    assert (error.code, error.param) == ("invalid_value", BOUND_PARAM)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise SystemExit(1)",
        "print('what?')",
        "import sys; sys.stdin.read()",
    ],
)
def test_a_process_that_dies_is_the_files_fault(runs: Callable[[str], None], code: str) -> None:
    runs(code)
    error = refusal(CLIP)
    assert (error.code, error.param) == ("invalid_video", PARAM)


def test_a_process_that_takes_too_long_is_ended(runs: Callable[[str], None]) -> None:
    runs(SLEEP)
    error = refusal(CLIP, timeout_s=0.2)
    assert error.code == "invalid_video"
    assert "0.2 s" in error.message
    assert not programs()


async def within_a_second(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(1):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_process_ends_with_the_client_that_leaves(runs: Callable[[str], None]) -> None:
    runs(SLEEP)

    async def leave() -> None:
        reading = asyncio.ensure_future(reader().read(CLIP, Sampling()))
        await within_a_second(lambda: bool(programs()))
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()

    asyncio.run(leave())
    assert not programs()


def test_as_many_run_at_a_time_as_there_are_places(runs: Callable[[str], None]) -> None:
    runs(SLEEP)

    async def crowd() -> int:
        places = reader(processes=2)
        waiting: list[Awaitable[object]] = [
            asyncio.ensure_future(places.read(CLIP, Sampling())) for _ in range(5)
        ]
        await within_a_second(lambda: len(programs()) == 2)
        await asyncio.sleep(0.1)
        running = len(programs())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return running

    assert asyncio.run(crowd()) == 2
    assert not programs()


def test_whether_videos_can_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert video_is_installed()
    monkeypatch.setitem(sys.modules, "av", None)
    assert not video_is_installed()
