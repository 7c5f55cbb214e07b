from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

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


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", {-signal.SIGXCPU, -signal.SIGKILL}),
        ("bytearray(3 * 2**30)", {1}),
        ("open('file', 'w').write('x' * 10**5)", {1, -signal.SIGXFSZ}),
    ],
)
def test_takes_no_more_than_it_may(code: str, status: set[int], tmp_path: Path) -> None:
    start = "from server.frontend.video_process import give_up_rights; give_up_rights(1)"
    command = [sys.executable, "-P", "-c", f"{start}\n{code}"]
    ended = subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode in status
