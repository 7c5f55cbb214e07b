"""Bytes that are no HTTP, or more of it than anybody needs; bodies that are no request."""

from __future__ import annotations

from tests.hostile.case import CHAT, Case, post

HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n".encode()

LONG = b"a" * 9000


def _http(name: str, wire: bytes) -> Case:
    return Case(name, wire, 400, "invalid_http")


HTTP = [
    _http("no http", b"HELO server\r\n\r\n"),
    _http("tls hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n"),
    Case("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, "unknown_url"),
    _http("no colon", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
    _http("no host", b"GET / HTTP/1.1\r\n\r\n"),
    _http("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    _http("space before colon", b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
    _http("control character", b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n"),
    _http("space in target", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    _http("negative length", HEAD + b"content-length: -1\r\n\r\n"),
    _http("hex length", HEAD + b"content-length: 0x10\r\n\r\n"),
    _http("huge length", HEAD + b"content-length: " + b"9" * 400 + b"\r\n\r\n"),
    _http("two lengths", HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    _http("unknown coding", HEAD + b"transfer-encoding: gzip\r\n\r\n"),
    _http("bad chunk size", HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
    Case("long path", b"GET /" + LONG + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "url_too_long"),
    Case("long query", b"GET /?" + LONG + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "url_too_long"),
    Case(
        "long header",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 17_000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    Case(
        "endless header",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 200_000,
        431,
        "headers_too_large",
    ),
    Case(
        "many headers",
        b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 200 + b"\r\n",
        431,
        "too_many_headers",
    ),
    Case("unknown path", post(b"{}", "/v1/nothing"), 404, "unknown_url"),
    Case("path tricks", post(b"{}", "/v1/../v1/chat/completions"), 404, "unknown_url"),
    Case("encoded slash", post(b"{}", "/v1%2fchat%2fcompletions/"), 404, "unknown_url"),
    Case("trailing slash", post(b"{}", CHAT + "/"), 404, "unknown_url"),
    Case("management", post(b"{}", "/update_weights"), 404, "unknown_url"),
    Case(
        "wrong method",
        f"DELETE {CHAT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode(),
        405,
        "method_not_allowed",
    ),
    Case("too large", HEAD + b"content-length: 999999999999\r\n\r\n", 413, "request_too_large"),
    Case("form", post(b"a=1", head="content-type: text/plain\r\n"), 415, "unsupported_media_type"),
    Case(
        "multipart",
        post(b"--x\r\n", head="content-type: multipart/form-data; boundary=x\r\n"),
        415,
        "unsupported_media_type",
    ),
    Case("no type", post(b"{}", head=""), 415, "unsupported_media_type"),
    Case(
        "gzip",
        post(b"\x1f\x8b", head="content-type: application/json\r\ncontent-encoding: gzip\r\n"),
        415,
        "unsupported_media_type",
    ),
]


def _json(name: str, body: bytes) -> Case:
    return Case(name, post(body), 400, "invalid_json")


JSON = [
    _json("empty", b""),
    _json("cut", b'{"model": "tiny-a", "messages": ['),
    _json("two values", b"{}{}"),
    _json("array", b"[]"),
    _json("string", b'"a"'),
    _json("null", b"null"),
    _json("NaN", b'{"temperature": NaN}'),
    _json("infinity", b'{"temperature": Infinity}'),
    _json("overflow", b'{"temperature": 1e999}'),
    _json("latin-1", b'{"a": "\xe9"}'),
    _json("overlong utf-8", b'{"a": "\xc0\xaf"}'),
    _json("lone surrogate", b'{"a": "\\ud800"}'),
    _json("utf-16", '{"a": 1}'.encode("utf-16")),
    _json("byte order mark", b"\xef\xbb\xbf{}"),
    _json("control character", b'{"a": "\x01"}'),
    _json("comment", b"{} // no"),
    _json("single quotes", b"{'a': 1}"),
    _json("trailing comma", b'{"a": 1,}'),
    _json("deep arrays", b"[" * 200_000),
    _json("deep objects", b'{"a":' * 100_000),
    _json("many values", b'{"a":[' + b"0," * 2_000_000 + b"0]}"),
    _json("many objects", b'{"a":[' + b"{}," * 1_000_000 + b"{}]}"),
    _json("nul bytes", bytes(1000)),
]
