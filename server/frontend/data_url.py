"""Pictures that travel inside a request, as `data:` URLs or bare base64.

What clients send is read leniently: any declared type, parameters, line breaks, missing padding and
both base64 alphabets. Everything that would make the server fetch or open something is refused.
"""

from __future__ import annotations

import binascii
import re

from server.errors import ApiError, invalid
from server.frontend.images import ImageLimits, file_too_large

SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
DATA_HEADER = re.compile(r"[^,]{0,256};\s*base64\s*,", re.IGNORECASE)

URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
WHITESPACE = b" \t\r\n\v\f"


def decode_data_url(url: str, limits: ImageLimits, param: str | None = None) -> bytes:
    """The file inside a `data:` URL or a base64 string.

    Args:
        param: path of the request's field, for errors.

    Raises:
        ApiError: 400; the URL is not one that carries its data, or its base64 is wrong or too long.
    """
    scheme = SCHEME.match(url)
    if scheme is None:
        return _decode_base64(url, limits, param)
    if scheme[1].lower() != "data":
        raise _not_carried(scheme[1].lower(), param)
    header = DATA_HEADER.match(url, scheme.end())
    if header is None:
        raise invalid(
            "A data: URL must have the form data:image/...;base64,...",
            param=param,
            code="invalid_image_url",
        )
    return _decode_base64(url[header.end() :], limits, param)


def _not_carried(scheme: str, param: str | None) -> ApiError:
    if scheme in ("http", "https"):
        message = "This server does not fetch remote images; send a data: URL with the image."
    else:
        message = "Only data: URLs are accepted as images."
    return invalid(message, param=param, code="invalid_image_url")


def _decode_base64(text: str, limits: ImageLimits, param: str | None) -> bytes:
    wrong = invalid("The image is not valid base64.", param=param, code="invalid_base64_image")
    try:
        packed = text.encode("ascii").translate(URL_SAFE_TO_STANDARD, WHITESPACE).rstrip(b"=")
    except UnicodeEncodeError:
        raise wrong from None
    if not packed:
        raise invalid("The image is empty.", param=param, code="empty_image_file")
    if len(packed) * 3 // 4 > limits.max_bytes:
        raise file_too_large(limits, param)
    try:
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4), strict_mode=True)
    except binascii.Error:
        raise wrong from None
