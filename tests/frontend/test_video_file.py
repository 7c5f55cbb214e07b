from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from server.frontend import video_file
from server.frontend.video_file import read_frames
from server.frontend.video_messages import VideoError, VideoJob, VideoRefusal
from server.frontend.video_sampling import Sampling
from tests import golden
from tests.videos import LOSSLESS, VP9, Codec, counted, encode, number_of

CLIP = encode(counted(100))
CASE = golden.video_sampling()[0]

CODECS: dict[str, Codec] = {
    "h264 in mp4": ("libx264", "mp4", "yuv420p", {"crf": "1"}),
    "h264 in mov": ("libx264", "mov", "yuv420p", {"crf": "1"}),
    "h264 in matroska": ("libx264", "matroska", "yuv420p", {"crf": "1"}),
    "hevc": ("libx265", "mp4", "yuv420p", {"crf": "1", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", "webm", "yuv420p", {"lag-in-frames": "16", "auto-alt-ref": "1"}),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", {"crf": "1"}),
    "mpeg4": ("mpeg4", "mp4", "yuv420p", {"bf": "2", "qmax": "2"}),
}


def read(
    data: bytes,
    segments: int = 8,
    bound_s: tuple[float, float] | None = None,
    size: int = 8,
    max_pixels: int = 10**6,
) -> list[bytes]:
    return read_frames(data, VideoJob(size, Sampling(segments, bound_s), max_pixels, 10))


def refusal(data: bytes, segments: int = 8, max_pixels: int = 10**6) -> VideoRefusal:
    with pytest.raises(VideoError) as caught:
        read(data, segments, max_pixels=max_pixels)
    return caught.value.refusal


@pytest.mark.parametrize("codec", [LOSSLESS, VP9], ids=["h264", "vp9"])
@pytest.mark.parametrize("key_every", [1, 7, 250])
def test_the_sampled_frames_are_exactly_those_of_the_rule(codec: Codec, key_every: int) -> None:
    clip = encode(counted(100), codec, key_every=key_every)
    assert list(map(number_of, read(clip))) == CASE["frame_indices"]
    assert list(map(number_of, read(clip, 4, (1, 2)))) == [28, 34, 40, 47]
    assert list(map(number_of, read(clip, 3, (3.9, 9)))) == [98, 98, 99]


def test_a_short_clip_gives_a_frame_several_times() -> None:
    case = golden.video_sampling()[3]
    numbers = map(number_of, read(encode(counted(4)), case["num_segments"]))
    assert list(numbers) == case["frame_indices"]
    assert list(map(number_of, read(encode(counted(1)), 3))) == [0, 0, 0]


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_what_people_send(codec: Codec) -> None:
    """Frames in another order than they are stored in, hidden ones, other containers."""
    shades = [Image.new("RGB", (64, 48), (2 * n, 2 * n, 2 * n)) for n in range(100)]
    frames = read(encode(shades, codec))
    seen = [round(float(np.frombuffer(frame, np.uint8).mean())) for frame in frames]
    assert seen == pytest.approx([2 * n for n in CASE["frame_indices"]], abs=3)


def test_a_frame_is_squashed_like_a_picture() -> None:
    files = [golden.IMAGES / name for name in ("frame1.png", "frame2.png")]
    pictures = [Image.open(file).convert("RGB") for file in files]
    expected = [picture.resize((56, 56)).tobytes() for picture in pictures]
    assert read(encode(pictures), 2, size=56) == [expected[0], expected[0]]
    assert read(encode([pictures[1]] * 2), 1, size=56) == [expected[1]]


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, 1)), (180, (1, 1)), (270, (1, 0))])
def test_a_video_is_turned_as_a_player_turns_it(degrees: int, corner: tuple[int, int]) -> None:
    """Phones store portrait videos lying down."""
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 8, 8))
    (frame,) = read(turned(encode([image]), degrees), 1, size=2)
    pixels = np.frombuffer(frame, np.uint8).reshape(2, 2, 3).mean(axis=2)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (row, column) == {90: (0, 1), 180: (1, 1), 270: (1, 0)}[degrees] == corner


def turned(data: bytes, degrees: int) -> bytes:
    """The file with another matrix in its track header: clockwise by so many degrees."""
    one = 1 << 16
    cosine, sine = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    matrix = struct.pack(">9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    return data[:at] + matrix + data[at + len(matrix) :]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("codec", [LOSSLESS, VP9], ids=["mp4", "webm"])
def test_a_truncated_file_is_refused(codec: Codec, share: float) -> None:
    clip = encode(counted(100), codec)
    assert refusal(clip[: int(len(clip) * share)]).code == "video_parse_error"


def test_a_truncated_file_is_refused_where_its_index_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    with av.open(io.BytesIO(CLIP), "r") as source:
        track = source.streams.video[0]
        with av.open(file, "w", options={"movflags": "+faststart"}) as target:
            copy = target.add_stream_from_template(track)
            for packet in source.demux(track):
                if packet.size:
                    packet.stream = copy
                    target.mux(packet)
    clip = file.read_bytes()
    assert list(map(number_of, read(clip))) == CASE["frame_indices"]
    for length in (len(clip) * 2 // 3, len(clip) - 10):
        assert refusal(clip[:length]).code == "video_parse_error"


def test_a_damaged_frame_is_refused() -> None:
    clip = encode(counted(50), CODECS["mpeg4"])
    middle = clip.index(b"mdat") + 600
    damaged = clip[:middle] + bytes(64) + clip[middle + 64 :]
    assert refusal(damaged, segments=50).code == "video_parse_error"


@pytest.mark.parametrize("codec", [LOSSLESS, VP9, CODECS["mpeg4"]], ids=["h264", "vp9", "mpeg4"])
def test_whatever_is_wrong_with_a_file_it_gives_frames_or_a_refusal(codec: Codec) -> None:
    clip = encode(counted(20), codec)
    chance = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(clip)
        for at in chance.integers(0, len(clip), 8):
            damaged[at] = chance.integers(256)
        try:
            frames = read(bytes(damaged), max_pixels=4096)
        except VideoError:
            continue
        assert [len(frame) for frame in frames] == [8 * 8 * 3] * 8


def test_the_size_is_looked_at_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(video_file, "_decode", never)
    monkeypatch.setattr(video_file, "_index", never)
    large = refusal(CLIP, max_pixels=32 * 16 - 1)
    assert large.code == "video_too_large"
    assert "32 x 16" in large.message and "511" in large.message


def test_work_is_bounded_by_packets_and_by_decoded_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encode(counted(60), key_every=60)
    monkeypatch.setattr(video_file, "DECODED_PIXELS_MAX", 32 * 16 * 57)
    assert len(read(clip)) == 8  # up to frame 56
    monkeypatch.setattr(video_file, "DECODED_PIXELS_MAX", 32 * 16 * 55)
    assert "Too much" in refusal(clip).message
    monkeypatch.setattr(video_file, "PACKETS_MAX", 59)
    assert "more than 59 frames" in refusal(clip).message


def test_only_groups_with_a_wanted_frame_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "DECODED_PIXELS_MAX", 32 * 16 * 10)
    clip = encode(counted(200), key_every=10)
    assert list(map(number_of, read(clip, 1))) == [99]
    assert list(map(number_of, read(clip, 1, (6, 6.4)))) == [155]


def test_a_file_without_a_video_is_refused() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert refusal(out.getvalue()).code == "invalid_video"


def test_a_codec_that_is_not_listed_is_refused() -> None:
    clip = encode(counted(3), ("ffv1", "matroska", "bgr0", {}))
    assert refusal(clip).code == "unsupported_video_media_type"


def test_a_bound_behind_the_end_says_where_the_end_is() -> None:
    with pytest.raises(VideoError) as caught:
        read(CLIP, 4, (5, 6))
    assert caught.value.refusal.about == "bound"
    assert "4.00 s" in caught.value.refusal.message
