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
