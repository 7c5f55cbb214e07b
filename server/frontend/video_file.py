"""Frames of a video file, decoded with PyAV. Runs in a process of its own: see `video_process`.

Formats and codecs are an allow-list, the size of the frames is looked at before one is decoded, and
from a file's own packets it is known how many frames there are before the first is decoded.
Only groups of pictures that hold a wanted frame are decoded, and of all of them together not more
than a bounded number of pixels.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from server.frontend.video_container import demuxer_for
from server.frontend.video_messages import VideoError, VideoJob, VideoRefusal, damaged
from server.frontend.video_sampling import frame_numbers

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4")
SUPPORTED_CODECS = "H.264, HEVC, VP8, VP9, AV1 or MPEG-4"

PACKETS_MAX = 200_000
DECODED_PIXELS_MAX = 20 * 10**9
"""Of one video; 10,000 frames of 1920 x 1080."""

TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}
"""By how many degrees, counterclockwise, a player turns the frames."""


@dataclass(frozen=True, slots=True)
class Index:
    """What the packets tell of a video before anything is decoded, in units of its time base."""

    shown: Sequence[int]
    """When each frame is shown, in order."""
    keys: Sequence[tuple[int, int]]
    """When each key frame is shown and where the file is entered to decode it, in order."""


def read_frames(data: bytes, job: VideoJob) -> list[bytes]:
    """The sampled frames, squashed to squares.

    Raises:
        VideoError: the client must change something.
    """
    options = {
        "protocol_whitelist": "",
        "codec_whitelist": ",".join(CODECS),
        "max_pixels": str(job.max_pixels),
    }
    try:
        with av.open(io.BytesIO(data), "r", format=demuxer_for(data), options=options) as container:
            stream = _video_stream(container, job)
            index = _index(container, stream)
            wanted = [index.shown[number] for number in _numbers(stream, index, job)]
            frames = _decode(container, stream, index, sorted(set(wanted)), job.size)
    except VideoError:
        raise
    except MemoryError:
        message = "Decoding the video takes more memory than this server allows."
        raise VideoError(VideoRefusal("video_too_large", message)) from None
    except Exception:  # FFmpeg or its bindings gave up, with whatever they happened to raise
        raise damaged() from None
    return [frames[time] for time in wanted]


def _video_stream(container: InputContainer, job: VideoJob) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise VideoError(VideoRefusal("invalid_video", "The file holds no video."))
    codec: VideoCodecContext | None = stream.codec_context
    if codec is None or codec.name not in CODECS:
        message = f"The video's codec is not supported; send {SUPPORTED_CODECS}."
        raise VideoError(VideoRefusal("unsupported_video_media_type", message))
    if codec.width * codec.height > job.max_pixels:
        message = (
            f"The video is {codec.width} x {codec.height} pixels; the limit is {job.max_pixels}."
        )
        raise VideoError(VideoRefusal("video_too_large", message))
    # One thread: what a stranger's file may cost does not grow with the machine.
    codec.thread_count = 1
    codec.options = {"max_pixels": str(job.max_pixels), "err_detect": "explode"}
    return stream


def _index(container: InputContainer, stream: VideoStream) -> Index:
    shown, keys, packets = set(), [], 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        packets += 1
        if packet.is_corrupt or packet.pts is None:
            raise damaged()
        if packets > PACKETS_MAX:
            message = f"The video has more than {PACKETS_MAX} frames; send a part of it."
            raise VideoError(VideoRefusal("video_too_large", message))
        if packet.is_keyframe:
            entry = packet.pts if packet.dts is None else packet.dts
            keys.append((packet.pts, entry))
        if not packet.is_discard:
            shown.add(packet.pts)
    if not shown or not keys or packets < stream.frames:
        raise damaged()
    return Index(sorted(shown), sorted(keys))


def _numbers(stream: VideoStream, index: Index, job: VideoJob) -> list[int]:
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    if job.sampling.bound_s is not None and not fps:
        message = "The video tells no frame rate, so it cannot be cut by seconds."
        raise VideoError(VideoRefusal("invalid_value", message, "bound"))
    numbers = frame_numbers(job.sampling, len(index.shown), fps)
    if numbers is None:
        message = f"The video ends after {len(index.shown) / fps:.2f} s, before its bound begins."
        raise VideoError(VideoRefusal("invalid_value", message, "bound"))
    return numbers


def _decode(
    container: InputContainer, stream: VideoStream, index: Index, wanted: Sequence[int], size: int
) -> dict[int, bytes]:
    """By time, the frames that are on the screen then, squashed.

    Args:
        wanted: times, ascending, each once.
    """
    frames: dict[int, bytes] = {}
    decoded = Decoder(container, stream, index)
    for time in wanted:
        frames[time] = _squash(decoded.frame_at(time), size)
    return frames


class Decoder:
    """Decodes forward, and enters the file anew where that leaves frames out."""

    def __init__(self, container: InputContainer, stream: VideoStream, index: Index) -> None:
        self._container = container
        self._stream = stream
        self._keys = index.keys
        self._frames: Iterator[VideoFrame] = iter(())
        self._last: VideoFrame | None = None
        self._pixels_left = DECODED_PIXELS_MAX

    def frame_at(self, time: int) -> VideoFrame:
        """Args:
        time: later than that of the call before.
        """
        shown, entry = self._keys[max(0, bisect_right(self._keys, (time, 2**63)) - 1)]
        if self._last is None or _time(self._last) < shown:
            self._container.seek(entry, stream=self._stream)
            self._frames = self._container.decode(self._stream)
            self._last = None
        while self._last is None or _time(self._last) < time:
            self._last = self._next()
        return self._last

    def _next(self) -> VideoFrame:
        frame = next(self._frames, None)
        if frame is None or frame.is_corrupt:
            raise damaged()
        self._pixels_left -= frame.width * frame.height
        if self._pixels_left < 0:
            message = "Too much of the video would have to be decoded; send a shorter part of it."
            raise VideoError(VideoRefusal("video_too_large", message))
        return frame


def _time(frame: VideoFrame) -> int:
    if frame.pts is None:
        raise damaged()
    return frame.pts


def _squash(frame: VideoFrame, size: int) -> bytes:
    rgb = frame.reformat(format="rgb24", interpolation="BICUBIC", threads=1)
    plane = rgb.planes[0]
    image = Image.frombytes(
        "RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size
    )
    turn = TURNS.get(frame.rotation)
    upright = image if turn is None else image.transpose(turn)
    return upright.resize((size, size)).tobytes()
