"""One process that decodes pictures, as those see it who have pictures: started when the first one
comes, ended when a picture takes too long, and started again for the next.

A thread cannot be stopped in a decoder, a process can. It holds one picture at a time, within a
bound on memory, so neither a file that takes forever nor one that crashes the decoder costs more
than its own request.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

import msgspec

from server.errors import ApiError, invalid, shutting_down
from server.frontend.confinement import OUT_OF_TIME
from server.frontend.images import damaged
from server.frontend.picture_messages import (
    GO_ON,
    LEAVE_IT,
    READY,
    PicturePixels,
    PictureRefusal,
    PictureReply,
    PictureSetup,
    PictureSize,
    read_frame,
    write_frame,
)

COMMAND = (sys.executable, "-P", "-m", "server.frontend.picture_process")

PICTURES_MAX = 1000
"""After so many a process is replaced: what a library leaks does not add up."""

STANDSTILL_S = 30.0
"""Beyond its processor time, for a process that others keep from computing."""
END_S = 1.0


class TooSlow(Exception):
    """The picture took longer than it may; its process is gone."""


class PictureDecoder:
    """Close it to end its process."""

    def __init__(self, setup: PictureSetup) -> None:
        self._setup = setup
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pictures = 0
        self._closed = False

    def decode(
        self,
        data: bytes,
        admit: Callable[[int], AbstractContextManager[None]],
    ) -> bytes:
        """The picture's pixels: RGB, row by row.

        Args:
            admit: told the number of pixels; entered before they are unpacked, left afterwards.

        Raises:
            TooSlow: it took longer than the setup allows.
            ApiError: 400, what is wrong with the picture; or what `admit` raised.
        """
        with self._turn:
            process = self._running()
            with self._standstill_ends(process):
                reply = _ask(process, data)
            if isinstance(reply, PictureSize):
                try:
                    with admit(reply.pixels), self._standstill_ends(process):
                        reply = _ask(process, GO_ON)
                except ApiError:
                    _tell(process, LEAVE_IT)
                    raise
            return self._pixels(reply)

    def close(self) -> None:
        """Does not wait for a picture that is being decoded: it fails."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._turn:
            self._end()

    def _pixels(self, reply: PictureReply | None) -> bytes:
        match reply:
            case PicturePixels(pixels) if len(pixels) == 3 * self._setup.size**2:
                return pixels
            case PictureRefusal(code, message):
                raise invalid(message, param=None, code=code)
        status = self._end()
        if self._closed:
            raise shutting_down()
        if status == -OUT_OF_TIME:
            raise TooSlow
        raise damaged(None)  # the decoder crashed

    @contextmanager
    def _standstill_ends(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Ends a process that neither answers nor uses the time that it has."""
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(STANDSTILL_S + self._setup.processor_s, end)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            self._end()
            raise TooSlow

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise shutting_down()
        if self._pictures >= PICTURES_MAX:
            self._end()
        if self._process is None:
            self._pictures = 0
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # where the library writes what it finds odd
            )
            _tell(self._process, msgspec.json.encode(self._setup))
            with self._standstill_ends(self._process):
                said = read_frame(_there(self._process.stdout))
            if said != READY:
                self._end()
                raise RuntimeError("the process that decodes pictures does not start")
        self._pictures += 1
        return self._process

    def _end(self) -> int:
        """What the process ended with."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _there(pipe).close()
        # Without its input a process ends by itself, and its status tells why one did before.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        process.kill()
        return process.wait()


def _ask(process: subprocess.Popen[bytes], data: bytes) -> PictureReply | None:
    """None where the process has ended or gone mad instead of answering."""
    _tell(process, data)
    said = read_frame(_there(process.stdout))
    try:
        return None if said is None else msgspec.msgpack.decode(said, type=PictureReply)
    except msgspec.DecodeError:
        return None


def _tell(process: subprocess.Popen[bytes], data: bytes) -> None:
    # One that has ended is noticed when it does not answer.
    with contextlib.suppress(BrokenPipeError):
        write_frame(_there(process.stdin), data)


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
