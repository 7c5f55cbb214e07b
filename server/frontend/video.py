"""Videos of requests, decoded by processes of their own: started, bounded and ended here.

As many run at a time as there are places; a process lives for one video. It ends with its answer,
with its time, or with the client that leaves.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass

import msgspec

from server.errors import ApiError, invalid
from server.frontend.video_messages import VideoFrames, VideoJob, VideoRefusal, VideoReply
from server.frontend.video_sampling import Sampling

COMMAND = (sys.executable, "-P", "-m", "server.frontend.video_process")

BOUND_PARAM = "media_io_kwargs.video.bound"


def video_is_installed() -> bool:
    """Whether the library that decodes videos is there."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True, slots=True)
class VideoLimits:
    max_pixels: int
    """Of one frame."""
    timeout_s: float
    """Longest work on one video."""


class VideoReader:
    """Turns video files into frames of `size` x `size` pixels.

    Args:
        processes: how many videos are decoded at a time; more wait.
    """

    def __init__(self, size: int, limits: VideoLimits, processes: int) -> None:
        self._size = size
        self._limits = limits
        self._places = asyncio.Semaphore(processes)

    async def read(self, data: bytes, sampling: Sampling, param: str | None = None) -> list[bytes]:
        """The sampled frames: RGB, row by row, `sampling.segments` of them.

        Args:
            param: path of the request's field, for errors.

        Raises:
            ApiError: 400; what is wrong with the video, or that it takes too long.
        """
        limits = self._limits
        job = VideoJob(self._size, sampling, limits.max_pixels, limits.timeout_s)
        async with self._places:
            reply = await self._decode(job, data)
        match reply:
            case VideoFrames(frames):
                return frames
            case VideoRefusal(code, message, about):
                where = BOUND_PARAM if about == "bound" else param
                raise invalid(message, param=where, code=code)
            case None:
                raise self._gave_up(param)

    async def _decode(self, job: VideoJob, data: bytes) -> VideoReply | None:
        """The answer of a process; None where it took too long or died."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                assert process.stdin is not None
                process.stdin.write(msgspec.json.encode(job) + b"\n")
                answer, _ = await process.communicate(data)
            return msgspec.msgpack.decode(answer, type=VideoReply) if answer else None
        except (TimeoutError, msgspec.DecodeError):
            return None
        finally:
            await _end(process)

    def _gave_up(self, param: str | None) -> ApiError:
        return invalid(
            f"The video could not be decoded within {self._limits.timeout_s:g} s and the memory "
            "that a video may take; send a shorter or smaller one.",
            param=param,
            code="invalid_video",
        )


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
