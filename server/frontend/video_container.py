"""The container format of a video file, told by its first bytes.

Only these formats are opened, each by its own demuxer: no other one is ever asked, so that no file
can pose as a playlist or a list of other files.
"""

from __future__ import annotations

from server.frontend.video_messages import VideoError, VideoRefusal, damaged

SUPPORTED = "MP4, MOV, WebM or Matroska"
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
"""A file of the family begins with the length and the name of one of these."""

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"


def demuxer_for(data: bytes) -> str:
    """FFmpeg's name of the format.

    Raises:
        VideoError: it is another one, or the file is shorter than it says.
    """
    if data[4:8] in MP4_BOXES:
        return "mp4"
    if data.startswith(EBML):
        _check_segment(data)
        return "matroska"
    message = f"The data is not a {SUPPORTED} video."
    raise VideoError(VideoRefusal("invalid_video_format", message))


def _check_segment(data: bytes) -> None:
    """FFmpeg takes the end of a Matroska file for the end of the video, wherever it is."""
    header_size, begin = _size(data, len(EBML))
    segment = begin + (header_size or 0)
    if data[segment : segment + len(SEGMENT)] != SEGMENT:
        raise damaged()
    size, begin = _size(data, segment + len(SEGMENT))
    if size is not None and begin + size > len(data):
        raise damaged()


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """An element's size in bytes, None where it was not known to the writer; where it begins."""
    first = data[at : at + 1]
    if not first or first == b"\0":
        raise damaged()
    length = 9 - first[0].bit_length()
    bits = 7 * length
    size = int.from_bytes(data[at : at + length], "big") & ((1 << bits) - 1)
    return (None if size == (1 << bits) - 1 else size), at + length
