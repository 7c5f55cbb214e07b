"""The process that decodes one video and ends.

A video is the largest program that a stranger can make the server run: FFmpeg's decoders. So they
run where nothing is lost when they fail: a process that has one file, a bound on memory and
processor time, writes no files, and gives way to everything else on the machine. Whatever it does,
the request gets an answer and the API goes on.
"""

from __future__ import annotations

import sys

import msgspec

from server.frontend.confinement import bound_processor_time, give_up_rights
from server.frontend.video_file import read_frames
from server.frontend.video_messages import VideoError, VideoFrames, VideoJob, VideoReply

MEMORY_BYTES_MAX = 2 * 2**30
"""Address space, the file included."""


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=VideoJob)
    give_up_rights(MEMORY_BYTES_MAX)
    bound_processor_time(job.processor_s)
    reply: VideoReply
    try:
        reply = VideoFrames(read_frames(sys.stdin.buffer.read(), job))
    except VideoError as error:
        reply = error.refusal
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    main()
