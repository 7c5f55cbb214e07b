"""Asks the server for the colour of a red circle, and is content with an answer that says it.

Runs in the server's image, with the standard library alone. SERVER is its address; KEYS is the
file of API keys, of which the first that is written out is used.
"""

import base64
import json
import os
import struct
import urllib.request
import zlib


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(size: int) -> bytes:
    """A red circle on white."""
    middle, radius = size / 2, size / 4
    rows = bytearray()
    for y in range(size):
        half = max(0.0, radius**2 - (y - middle) ** 2) ** 0.5
        left, right = int(middle - half), int(middle + half)
        white = b"\xff\xff\xff"
        rows += b"\0" + white * left + b"\xdc\x26\x26" * (right - left) + white * (size - right)
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def api_key(keys: str) -> str:
    for line in keys.splitlines():
        words = line.split()
        if len(words) > 1 and not words[0].startswith("#") and not words[1].startswith("sha256:"):
            return words[1]
    return "none"


def ask(path: str, body: object = None) -> dict:
    headers = {
        "content-type": "application/json",
        "authorization": "Bearer " + api_key(os.environ.get("KEYS", "")),
    }
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["SERVER"] + path, data, headers)
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


model = ask("/v1/models")["data"][0]["id"]
url = "data:image/png;base64," + base64.b64encode(png(224)).decode()
content = [
    {"type": "image_url", "image_url": {"url": url}},
    {"type": "text", "text": "What colour is the circle?"},
]
answer = ask(
    "/v1/chat/completions",
    {
        "model": model,
        "max_tokens": 32,
        "temperature": 0,
        "messages": [{"role": "user", "content": content}],
    },
)
print(json.dumps(answer, indent=2))
said = answer["choices"][0]["message"]["content"]
assert "red" in said.lower(), f"a red circle, and the answer is {said!r}"
