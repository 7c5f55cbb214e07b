from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import ApiError
from server.frontend.data_url import decode_data_url

MAX_BYTES = 1000
PARAM = "messages[0].content[1].image_url.url"


def refusal(url: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode_data_url(url, MAX_BYTES, PARAM)
    assert caught.value.status == 400
    assert caught.value.param == PARAM
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,+/8A",
        "DATA:IMAGE/PNG;BASE64,+/8A",
        "data:;base64,+/8A",
        "data:text/html;charset=utf-8;name=a.png; base64,+/8A",
        " data:image/png;base64,\n+/8\r\n A\n",
        "data:image/png;base64,-_8A",
        "+/8A",
        "-_8A\n",
    ],
)
def test_lenient_forms(url: str) -> None:
    assert decode_data_url(url, MAX_BYTES) == b"\xfb\xff\x00"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.booleans(), st.booleans(), st.integers(1, 20))
def test_any_bytes_survive(data: bytes, url_safe: bool, padded: bool, line_length: int) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    lines = [text[i : i + line_length] for i in range(0, len(text), line_length)]

    assert decode_data_url("data:image/jpeg;base64," + "\r\n".join(lines), MAX_BYTES) == data


@pytest.mark.parametrize("url", ["http://example.com/a.png", "HTTPS://example.com/a.png"])
def test_remote_images_are_off(url: str) -> None:
    error = refusal(url)

    assert error.code == "invalid_image_url"
    assert "does not fetch remote images" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://example.com/a.png",
        "blob:null/1234",
        " javascript:alert(1)",
        "data:image/png,rawbytes",
        "data:image/png;base64",
        "data:base64,AAAA",
        "data:" + "a" * 300 + ";base64,AAAA",
    ],
)
def test_nothing_else_is_opened(url: str) -> None:
    assert refusal(url).code == "invalid_image_url"


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,A",
        "data:image/png;base64,AAAAA",
        "data:image/png;base64,AA=A",
        "data:image/png;base64,AAA=AAA",
        "data:image/png;base64,AA!A",
        "data:image/png;base64,ÀÀÀÀ",
        "data:image/png;base64,AAAA,AAAA",
        "../../etc/passwd",
        "//example.com/a.png",
        "AA\0A",
    ],
)
def test_what_is_no_base64_is_refused(url: str) -> None:
    assert refusal(url).code == "invalid_base64_image"


@pytest.mark.parametrize("url", ["", " \n", "data:image/png;base64,", "data:;base64,==\n"])
def test_an_empty_image_is_refused(url: str) -> None:
    assert refusal(url).code == "empty_image_file"


def test_the_size_is_checked_before_decoding() -> None:
    assert len(decode_data_url(base64.b64encode(bytes(1000)).decode(), MAX_BYTES)) == 1000

    error = refusal("A" * 1340 + "!")

    assert error.code == "image_file_too_large"
    assert "1000 bytes" in error.message


def test_pieces_of_any_alignment_are_joined() -> None:
    data = bytes(range(256)) * 4000
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[i : i + 77] for i in range(0, len(text), 77))
    assert decode_data_url(text, 2**22) == decode_data_url(lines, 2**22) == data
