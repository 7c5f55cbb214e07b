"""Small files that are a lot of work."""

from __future__ import annotations

import struct
import zlib


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of_chunks(count: int) -> bytes:
    """A picture of one pixel behind chunks of nothing, each of which is read and checked."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"abCd", b"") * count
        + png_chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + png_chunk(b"IEND", b"")
    )


def gif_of(width: int, height: int) -> bytes:
    """One that says how its frame is disposed of: Pillow then fills a picture while it opens it."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"!\xf9\x04\x09\0\0\0\0," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return screen + frame + b"\x02\x02\x4c\x01\0;"
