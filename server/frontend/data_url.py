"""Pictures and videos that travel inside a request, as `data:` URLs or bare base64.

What clients send is read leniently: any declared type, parameters, line breaks, missing padding and
both base64 alphabets. Everything that would make the server fetch or open something is refused.
"""

from __future__ import annotations

import binascii
import re
from typing import Literal

from server.errors import ApiError, invalid

MediaKind = Literal["image", "video"]

SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
DATA_HEADER = re.compile(r"[^,]{0,256};\s*base64\s*,", re.IGNORECASE)

URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
WHITESPACE = " \t\r\n\v\f"

PIECE_CHARS = 2**18


def decode_data_url(
    url: str, max_bytes: int, param: str | None = None, kind: MediaKind = "image"
) -> bytes:
    """The file inside a `data:` URL or a base64 string.

    Args:
        max_bytes: of the file.
        param: path of the request's field, for errors.

    Raises:
        ApiError: 400; the URL is not one that carries its data, or its base64 is wrong or too long.
    """
    scheme = SCHEME.match(url)
    if scheme is None:
        return _decode_base64(url, max_bytes, param, kind)
    if scheme[1].lower() != "data":
        raise _not_carried(scheme[1].lower(), param, kind)
    header = DATA_HEADER.match(url, scheme.end())
    if header is None:
        raise invalid(
            f"A data: URL must have the form data:{kind}/...;base64,...",
            param=param,
            code=f"invalid_{kind}_url",
        )
    return _decode_base64(url[header.end() :], max_bytes, param, kind)


def _not_carried(scheme: str, param: str | None, kind: MediaKind) -> ApiError:
    if scheme in ("http", "https"):
        message = f"This server does not fetch remote {kind}s; send a data: URL with the {kind}."
    else:
        message = f"Only data: URLs are accepted as {kind}s."
    return invalid(message, param=param, code=f"invalid_{kind}_url")


def _decode_base64(text: str, max_bytes: int, param: str | None, kind: MediaKind) -> bytes:
    """Piece by piece: one call for a whole file would keep all other threads from running."""
    text = text.rstrip(WHITESPACE + "=")
    size_chars = len(text) - sum(map(text.count, WHITESPACE))
    if not size_chars:
        raise invalid(f"The {kind} is empty.", param=param, code=f"empty_{kind}_file")
    if size_chars * 3 // 4 > max_bytes:
        raise invalid(
            f"The {kind} file is larger than the limit of {max_bytes} bytes.",
            param=param,
            code=f"{kind}_file_too_large",
        )
    data, rest = bytearray(), b""
    try:
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS].encode("ascii")
            if b"=" in piece:  # Python would end one text there and begin another
                raise binascii.Error
            packed = rest + piece.translate(URL_SAFE_TO_STANDARD, WHITESPACE.encode())
            whole = len(packed) // 4 * 4
            data += binascii.a2b_base64(packed[:whole], strict_mode=True)
            rest = packed[whole:]
        data += binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise invalid(
            f"The {kind} is not valid base64.", param=param, code=f"invalid_base64_{kind}"
        ) from None
    return bytes(data)
