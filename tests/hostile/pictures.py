"""Pictures that are none, lie about their size or their type, or unpack to more than they are; and
addresses that the server must not ask."""

from __future__ import annotations

import base64
import io
import struct
import zlib

from PIL import Image

from tests.frontend.bombs import gif_of, png_of_chunks
from tests.hostile.case import Case, picture


def _file(data: bytes, declared: str = "image/png") -> str:
    return f"data:{declared};base64,{base64.b64encode(data).decode()}"


def _png(width: int, height: int, pixels: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + packed + chunk(b"IEND", b"")


def _encoded(image_format: str, width: int = 20, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(out, image_format)
    return out.getvalue()


def _progressive() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 5000 + data[-2:]


def _case(name: str, url: object, code: str) -> Case:
    return Case(name, picture(url), 400, code)


DAMAGED = "image_parse_error"
FILES = [
    _case("empty", "data:image/png;base64,", "empty_image_file"),
    _case("empty text", "", "empty_image_file"),
    _case("no base64", "data:image/png;base64,!!!!", "invalid_base64_image"),
    _case("base64 length", "data:image/png;base64,AAAAA", "invalid_base64_image"),
    _case("padding inside", "data:image/png;base64,AA==AAAA", "invalid_base64_image"),
    _case("not ascii", "data:image/png;base64,\u00c0\u00c0", "invalid_base64_image"),
    _case("url-encoded", "data:image/png,%89PNG", "invalid_image_url"),
    _case("text", _file(b"hello, this is no picture"), "invalid_image_format"),
    _case("zeros", _file(bytes(1000)), "invalid_image_format"),
    _case("svg", _file(b'<svg xmlns="http://a"/>'), "unsupported_image_media_type"),
    _case(
        "svg entity",
        _file(b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'),
        "unsupported_image_media_type",
    ),
    _case("pdf", _file(b"%PDF-1.7\n"), "unsupported_image_media_type"),
    _case("bmp", _file(_encoded("BMP")), "unsupported_image_media_type"),
    _case("tiff", _file(_encoded("TIFF")), "unsupported_image_media_type"),
    _case("postscript", _file(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "invalid_image_format"),
    _case("playlist", _file(b"#EXTM3U\nfile:///etc/passwd\n"), "invalid_image_format"),
    _case("pickle", _file(b"\x80\x04\x95"), "invalid_image_format"),
    _case("fits", _file(b"SIMPLE  =                    T"), "invalid_image_format"),
    _case("png header only", _file(b"\x89PNG\r\n\x1a\n"), DAMAGED),
    _case("png cut", _file(_encoded("PNG")[:-200]), DAMAGED),
    _case("jpeg cut", _file(_encoded("JPEG")[:-200]), DAMAGED),
    _case("webp cut", _file(_encoded("WEBP")[:-100]), DAMAGED),
    _case("jpeg soi only", _file(b"\xff\xd8\xff"), DAMAGED),
    _case("gif header only", _file(b"GIF89a"), DAMAGED),
    _case("png of nothing", _file(_png(0, 0)), DAMAGED),
    _case("png without pixels", _file(_png(100, 100)), DAMAGED),
    _case("bomb of 177 megapixels", _file(_png(13_300, 13_300)), "image_too_large"),
    _case("bomb of 4 gigapixels", _file(_png(65_000, 65_000)), "image_too_large"),
    _case("largest side", _file(_png(2**31 - 1, 1)), "image_too_large"),
    _case("thin line", _file(_png(16_000, 10)), "invalid_image"),
    _case("zlib bomb", _file(_png(10, 10, bytes(20_000_000), depth=3)), DAMAGED),
    _case("gif of 4 gigapixels", _file(gif_of(65_535, 65_535)), "image_too_large"),
    _case("many scans", _file(_progressive()), "invalid_image"),
    _case("file too large", _file(b"\xff\xd8\xff" + bytes(21 * 2**20)), "image_file_too_large"),
    _case("number", 3, "invalid_type"),
    _case("null", None, "invalid_type"),
    Case("jpeg that says png", picture(_file(_encoded("JPEG"))), 200, None),
    Case("picture that says text", picture(_file(_encoded("PNG"), "text/html")), 200, None),
    Case("one pixel", picture(_file(_encoded("PNG", 1, 1))), 200, None),
    Case("gif", picture(_file(_encoded("GIF"))), 200, None),
]

BOMBS = [_case("chunks", _file(png_of_chunks(300_000)), "invalid_image")]
"""For a daemon that gives pictures little time."""


def addresses(port: int) -> list[Case]:
    """Every spelling of a server on this host that somebody once got through.

    Args:
        port: where the canary listens.
    """
    urls = (
        f"http://127.0.0.1:{port}/",
        f"https://127.0.0.1:{port}/",
        f"HTTP://LOCALHOST:{port}/",
        f" http://localhost:{port}/",
        f"http://localhost.:{port}/",
        f"http://2130706433:{port}/",
        f"http://0x7f.1:{port}/",
        f"http://0177.0.0.1:{port}/",
        f"http://127.1:{port}/",
        f"http://[::1]:{port}/",
        f"http://[::ffff:7f00:1]:{port}/",
        f"http://１２７.０.０.１:{port}/",
        f"http://user@127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}\\@example.com/",
        f"http://example.com#@127.0.0.1:{port}/",
        f"ftp://127.0.0.1:{port}/",
        f"gopher://127.0.0.1:{port}/_GET",
        f"ws://127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "file:etc/passwd",
        "FILE://localhost/etc/passwd",
        "jar:file:///a!/b",
        "blob:http://a/1",
        "javascript:alert(1)",
        "s3://bucket/key",
    )
    return [_case(f"address {url}", url, "invalid_image_url") for url in urls]


PATHS = [
    _case("absolute path", "/etc/passwd", "invalid_image_format"),
    _case("relative path", "../../etc/passwd", "invalid_base64_image"),
    _case("no scheme", "//127.0.0.1/a.png", "invalid_base64_image"),
]
