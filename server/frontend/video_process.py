"""The process that decodes one video and ends.

A video is the largest program that a stranger can make the server run: FFmpeg's decoders. So they
run where nothing is lost when they fail: a process that has one file, a bound on memory and
processor time, writes no files, and gives way to everything else on the machine. Whatever it does,
the request gets an answer and the API goes on.
"""

from __future__ import annotations

import os
import resource
import sys

import msgspec

from server.frontend.video_file import read_frames
from server.frontend.video_messages import VideoError, VideoFrames, VideoJob, VideoReply

MEMORY_BYTES_MAX = 2 * 2**30
"""Address space, the file included."""


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=VideoJob)
    give_up_rights(job.cpu_limit_s)
    reply: VideoReply
    try:
        reply = VideoFrames(read_frames(sys.stdin.buffer.read(), job))
    except VideoError as error:
        reply = error.refusal
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))


def give_up_rights(cpu_limit_s: int) -> None:
    """Takes from this process what it does not need."""
    os.nice(5)
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, cpu_limit_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
