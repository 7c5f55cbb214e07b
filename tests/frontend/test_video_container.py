from __future__ import annotations

import pytest

from server.frontend.video_container import demuxer_for
from server.frontend.video_messages import VideoError
from tests.videos import LOSSLESS, VP9, counted, encode

MP4, WEBM = encode(counted(3), LOSSLESS), encode(counted(3), VP9)


def refusal(data: bytes) -> str:
    with pytest.raises(VideoError) as caught:
        demuxer_for(data)
    return caught.value.refusal.code


def test_formats_are_told_by_the_content() -> None:
    assert demuxer_for(MP4) == "mp4"
    assert demuxer_for(b"\0\0\0\x08wide") == "mp4"
    assert demuxer_for(WEBM) == "matroska"
    assert demuxer_for(WEBM + b"more") == "matroska"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"#EXTM3U\n#EXTINF:1,\nhttp://example.com/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"RIFF\0\0\0\0AVI LIST",
        b"GIF89a" + bytes(20),
        b"G" * 188,
        b"\xff\xd8\xff\xe0" + bytes(20),
    ],
)
def test_every_other_format_is_refused_unread(data: bytes) -> None:
    assert refusal(data) == "invalid_video_format"


@pytest.mark.parametrize("length", [4, 5, 30, len(WEBM) // 2, len(WEBM) - 1])
def test_a_matroska_file_that_is_shorter_than_it_says_is_refused(length: int) -> None:
    assert refusal(WEBM[:length]) == "video_parse_error"


def test_a_matroska_file_may_not_know_its_length() -> None:
    """Live recordings do not."""
    at = WEBM.index(b"\x18\x53\x80\x67") + 4
    assert WEBM[at] == 0x01
    unknown = WEBM[:at] + b"\x01" + b"\xff" * 7 + WEBM[at + 8 :]
    assert demuxer_for(unknown) == "matroska"


@pytest.mark.parametrize("header", [b"\0" * 8, b"\x80" + b"\0" * 7, b"\xff" * 8])
def test_a_header_without_a_segment_is_refused(header: bytes) -> None:
    assert refusal(b"\x1a\x45\xdf\xa3" + header) == "video_parse_error"
