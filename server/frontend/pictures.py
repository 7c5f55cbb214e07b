"""Pictures of requests, decoded by processes: how many, in which lane, and for how long.

There are two lanes, so that no bomb stands in the way of a snapshot. In the quick one a picture
gets a second, which is enough for all but the largest; what takes longer begins anew in the slow
one, with the time of the operator. However many bombs are sent, none holds a process of the quick
lane for longer than that second.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from server.errors import ApiError, invalid
from server.frontend.images import ImageLimits, ImageMode
from server.frontend.picture_decoder import PictureDecoder, TooSlow
from server.frontend.picture_messages import PictureSetup

QUICK_S = 1.0

Admit = Callable[[int], AbstractContextManager[None]]
"""Told the number of pixels of a picture; entered before they are unpacked, left afterwards."""

MEMORY_BYTES_BASE = 512 * 2**20
MEMORY_BYTES_PER_PIXEL = 32
"""Address space of a process. Unpacked, turned and laid over white, with the coefficients of a
progressive JPEG: a pixel takes 24 bytes at most."""


class PictureReader:
    """Turns picture files into `size` x `size` pixels. Close it to end its processes.

    Args:
        processor_s: longest work on one picture.
        processes: of the quick lane; the slow one has half as many.
    """

    def __init__(
        self, size: int, mode: ImageMode, limits: ImageLimits, processor_s: float, processes: int
    ) -> None:
        self._processor_s = processor_s

        def lane(processes: int, processor_s: float, *, lower_priority: bool) -> Lane:
            setup = PictureSetup(
                size,
                mode,
                limits.max_bytes,
                limits.max_pixels,
                MEMORY_BYTES_BASE + MEMORY_BYTES_PER_PIXEL * limits.max_pixels,
                processor_s,
                lower_priority,
            )
            return Lane(setup, processes)

        self._quick = lane(processes, min(QUICK_S, processor_s), lower_priority=False)
        self._slow = lane(max(1, processes // 2), processor_s, lower_priority=True)

    def close(self) -> None:
        self._quick.close()
        self._slow.close()

    async def read(self, data: bytes, admit: Admit, param: str | None = None) -> bytes:
        """The picture as the model sees it: RGB, row by row.

        Args:
            param: path of the request's field, for errors.

        Raises:
            ApiError: 400, what is wrong with the picture or that it takes too long; or what
                `admit` raised.
        """
        for lane in (self._quick, self._slow):
            try:
                return await lane.decode(data, admit)
            except TooSlow:
                continue
            except ApiError as failure:
                failure.param = failure.param or param
                raise
        raise invalid(
            f"The image could not be decoded within {self._processor_s:g} s of processor "
            "time, the limit of this server; send a smaller or simpler one.",
            param=param,
            code="invalid_image",
        )


class Lane:
    """Processes that take pictures in turn, each driven by a thread."""

    def __init__(self, setup: PictureSetup, processes: int) -> None:
        self._decoders = [PictureDecoder(setup) for _ in range(processes)]
        # The one that was used last comes first: the others need never be started.
        self._idle: queue.LifoQueue[PictureDecoder] = queue.LifoQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(processes, "picture")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

    async def decode(self, data: bytes, admit: Admit) -> bytes:
        """Raises:
        TooSlow: the picture takes longer than pictures may in this lane.
        ApiError: what the decoder said.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._decode, data, admit
        )

    def _decode(self, data: bytes, admit: Admit) -> bytes:
        decoder = self._idle.get_nowait()  # there are as many as threads
        try:
            return decoder.decode(data, admit)
        finally:
            self._idle.put(decoder)
