"""Any text is the bytes that a lenient decoder finds in it, within the limit, or a refusal."""

from __future__ import annotations

import base64

from server.errors import ApiError
from server.frontend.data_url import decode_data_url
from tests.fuzz.target import Target

MAX_BYTES = 64


def try_one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    try:
        found = decode_data_url(text, MAX_BYTES, "x")
    except ApiError as failure:
        assert (failure.status, failure.param) == (400, "x")
        return
    assert 0 < len(found) <= MAX_BYTES
    packed = base64.b64encode(found).decode().rstrip("=")
    kept = text.rpartition(",")[2].translate(str.maketrans("-_", "+/", " \t\r\n\v\f="))
    # The last character of base64 may carry bits that belong to no byte.
    assert kept[: len(packed) - 1] == packed[:-1]
    assert decode_data_url(f"data:;base64,{packed}", MAX_BYTES) == found


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


TARGET = Target(
    "data_urls",
    try_one,
    [
        b"data:image/png;base64,AAAA",
        b"DATA:image/jpeg;a=b; BASE64 ,A-_/\r\nAA==",
        b"AAAAAAA=",
        b"https://a/b.png",
        b"file:///etc/passwd",
        " data:;base64,\u00c0".encode(),
    ],
)
