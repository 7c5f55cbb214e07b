from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from server.frontend.confinement import OUT_OF_TIME
from server.frontend.video_messages import VideoFrames, VideoJob, VideoRefusal, VideoReply
from server.frontend.video_sampling import Sampling
from tests.videos import counted, encode, number_of

JOB = VideoJob(8, Sampling(2), 10**6, 5)


def run(data: bytes) -> VideoReply:
    command = [sys.executable, "-P", "-m", "server.frontend.video_process"]
    payload = msgspec.json.encode(JOB) + b"\n" + data
    output = subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True).stdout
    reply: VideoReply = msgspec.msgpack.decode(output, type=VideoReply)
    return reply


def test_answers_with_frames_or_with_a_refusal() -> None:
    frames = run(encode(counted(100)))
    assert isinstance(frames, VideoFrames)
    assert list(map(number_of, frames.frames)) == [24, 74]
    refused = run(b"nothing")
    assert isinstance(refused, VideoRefusal)
    assert refused.code == "invalid_video_format"


def limited(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that has given up what one for videos gives up."""
    start = (
        "from server.frontend.video_process import *\n"
        "give_up_rights(MEMORY_BYTES_MAX)\nbound_processor_time(0.2)\n"
    )
    command = [sys.executable, "-P", "-c", start + code]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)


def test_takes_no_more_than_it_may(tmp_path: Path) -> None:
    assert limited("while True: pass").returncode == -OUT_OF_TIME
    assert "MemoryError" in limited("bytearray(3 * 2**30)").stderr
    file = tmp_path / "file"
    assert "File too large" in limited(f"open({str(file)!r}, 'wb', 0).write(b'x')").stderr
