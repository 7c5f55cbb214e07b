"""Pictures and videos of a request: from what the client sent to the pixels that the model sees.

Each kind has processes of its own, so that a flood of videos keeps no picture waiting and neither
delays the tokens of a text. What is still to be done for a request ends when one of its pictures is
refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from server import host
from server.api.conversation import Picture, Shown, Video
from server.errors import ApiError, invalid
from server.frontend.data_url import MediaKind, decode_data_url
from server.frontend.images import ImageLimits, image_digest
from server.frontend.pictures import PictureReader
from server.frontend.pixel_budget import PixelAllowance, PixelBudget
from server.frontend.remote_media import MediaFetcher, MediaPolicy
from server.frontend.video import VideoLimits, VideoReader, video_is_installed
from server.settings import Settings

PICTURE_PROCESSES_MAX = 16
FILE_THREADS_MAX = 4
VIDEO_PROCESSES_MAX = 4

Pixels = tuple[bytes, bytes]
"""Digest and uint8 RGB pixels of a picture or a frame."""

Result = TypeVar("Result")


class MediaLoader:
    """Loads what requests show the model. Close it to end its threads and processes.

    Args:
        size: side of the model's square, in pixels.
        decoded: told how many seconds each picture took.
    """

    def __init__(self, settings: Settings, size: int, decoded: Callable[[float], None]) -> None:
        self._decoded = decoded
        sharers = settings.api_workers
        cores = max(1, host.cores() // sharers)
        self._image_bytes_max = settings.max_image_bytes
        self._remote = MediaFetcher(
            MediaPolicy(
                settings.allow_remote_media,
                tuple(domain.lower() for domain in settings.allowed_media_domains),
                settings.media_path,
            )
        )
        self._images_max = settings.max_images
        self._request_pixels_max = settings.max_request_image_pixels
        self._pixel_budget = PixelBudget(settings.max_total_image_pixels // sharers)
        self._pictures = PictureReader(
            size,
            settings.image_mode,
            ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
            settings.image_timeout_s,
            min(cores, PICTURE_PROCESSES_MAX),
        )
        self._video_bytes_max = settings.max_video_bytes
        limits = VideoLimits(settings.max_image_pixels, settings.video_timeout_s)
        self._videos = VideoReader(size, limits, min(cores, VIDEO_PROCESSES_MAX))
        self._threads = ThreadPoolExecutor(min(cores, FILE_THREADS_MAX), "media")

    def close(self) -> None:
        self._pictures.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def load(self, media: Sequence[Shown]) -> list[Pixels]:
        """Pictures and frames in their order.

        Raises:
            ApiError: what the first bad one of them raised.
        """
        check_images(sum(isinstance(shown, Picture) for shown in media), self._images_max)
        allowance = PixelAllowance(self._request_pixels_max)
        work = [
            self._video(shown) if isinstance(shown, Video) else self._picture(shown, allowance)
            for shown in media
        ]
        return [pixels for result in await _in_order(work) for pixels in result]

    async def _picture(self, picture: Picture, allowance: PixelAllowance) -> list[Pixels]:
        data = await self._fetch(picture.url, "image", self._image_bytes_max, picture.param)
        began_s = time.perf_counter()

        @contextmanager
        def admit(pixels: int) -> Iterator[None]:
            allowance.take(pixels, picture.param)
            with self._pixel_budget.holding(pixels):
                yield

        pixels = await self._pictures.read(data, admit, picture.param)
        self._decoded(time.perf_counter() - began_s)
        return await self._in_thread(partial(_with_digests, [pixels]))

    async def _video(self, video: Video) -> list[Pixels]:
        if not video_is_installed():
            raise _no_videos(video.param)
        data = await self._fetch(video.url, "video", self._video_bytes_max, video.param)
        frames = await self._videos.read(data, video.sampling, video.param)
        return await self._in_thread(partial(_with_digests, frames))

    async def _fetch(self, url: str, kind: MediaKind, max_bytes: int, param: str) -> bytes:
        """The file behind a URL: the one place where an address becomes bytes."""
        if self._remote.fetches(url):
            return await self._remote.fetch(url, max_bytes, param, kind)
        return await self._in_thread(partial(decode_data_url, url, max_bytes, param, kind))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def check_images(count: int, limit: int) -> None:
    """Raises:
    ApiError: 400; a request may not have so many pictures.
    """
    if count > limit:
        raise invalid(
            f"Invalid 'messages': at most {limit} pictures are accepted in a request, but got "
            f"{count}.",
            param="messages",
            code="array_above_max_length",
        )


def _with_digests(frames: Sequence[bytes]) -> list[Pixels]:
    return [(image_digest(frame), frame) for frame in frames]


async def _in_order(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, or the failure of the first that fails: what comes after one is given up, what
    comes before it may still be the first."""
    tasks = [asyncio.ensure_future(part) for part in work]

    def give_up_from(index: int, ended: asyncio.Future[Result]) -> None:
        if ended.cancelled() or ended.exception() is not None:
            for task in tasks[index:]:
                task.cancel()

    for index, task in enumerate(tasks, 1):
        task.add_done_callback(partial(give_up_from, index))
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _no_videos(param: str) -> ApiError:
    return ApiError(
        400,
        "unsupported_value",
        "Videos are not supported by this installation. Send pictures, or ask the operator to "
        "install internvl-serve with its extra: internvl-serve[video].",
        param=param,
    )
