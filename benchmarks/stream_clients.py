"""Many streaming clients in one process that does next to nothing else.

Opens the connections, sends one request on each, reads until all streams have ended and prints one
line of JSON. A client library would cost more than the server: here a read is a system call, two
searches in its bytes and a number in an array.

    python -m benchmarks.stream_clients URL --clients 256 --tokens 2000
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import selectors
import socket
import statistics
import time
from array import array
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

USAGE = re.compile(rb'"completion_tokens":(\d+)')
READ_BYTES = 1 << 18
DONE = b"data: [DONE]\n\n"
FRAME = b"data: {"


@dataclass(slots=True)
class Stream:
    """One client."""

    connection: socket.socket
    tail: bytes = b""
    """Of what has been read, enough to find what is cut by reads."""
    frames: int = 0
    reads: int = 0
    read_at: float = 0.0
    tokens: int = 0
    gaps: array[float] = field(default_factory=lambda: array("d"))
    """Between reads that brought content, in seconds."""

    def take(self, data: bytes, now: float) -> bool:
        """Whether the stream has ended."""
        self.reads += 1
        self.frames += (self.tail[1 - len(FRAME) :] + data).count(FRAME)
        if self.read_at:
            self.gaps.append(now - self.read_at)
        self.read_at = now
        self.tail = (self.tail + data)[-600:]
        if DONE not in self.tail:
            return False
        usage = USAGE.search(self.tail)
        self.tokens = int(usage[1]) if usage else 0
        return True


def request(host: str, model: str, tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def run(url: str, model: str, clients: int, tokens: int) -> dict[str, Any]:
    """All clients begin together; times count from the moment when the last one has begun."""
    where = urlsplit(url)
    assert where.hostname is not None and where.port is not None
    selector = selectors.EpollSelector()
    asked = request(where.netloc, model, tokens)
    streams = []
    for _ in range(clients):
        connection = socket.create_connection((where.hostname, where.port))
        connection.sendall(asked)
        connection.setblocking(False)
        stream = Stream(connection)
        selector.register(connection, selectors.EVENT_READ, stream)
        streams.append(stream)
    began_at, began_cpu_s = time.perf_counter(), cpu_s()
    left = clients
    while left:
        for key, _ in selector.select():
            stream = key.data
            data = stream.connection.recv(READ_BYTES)
            if not data:
                raise SystemExit(f"a stream broke: {stream.tail!r}")
            if stream.take(data, time.perf_counter()):
                selector.unregister(stream.connection)
                stream.connection.close()
                left -= 1
    seconds = time.perf_counter() - began_at
    return {"seconds": seconds, "cpu_s": cpu_s() - began_cpu_s, **summary(streams)}


def summary(streams: list[Stream]) -> dict[str, Any]:
    gaps = sorted(gap for stream in streams for gap in stream.gaps)
    jitters = sorted(
        abs(gap - middle)
        for stream in streams
        for middle in [statistics.median(stream.gaps or [0.0])]
        for gap in stream.gaps
    )
    return {
        "tokens": sum(stream.tokens for stream in streams),
        "frames": sum(stream.frames for stream in streams),
        "reads": sum(stream.reads for stream in streams),
        "gap_p50_ms": quantile_ms(gaps, 0.5),
        "gap_p99_ms": quantile_ms(gaps, 0.99),
        "jitter_p99_ms": quantile_ms(jitters, 0.99),
    }


def quantile_ms(ascending: list[float], share: float) -> float:
    if not ascending:
        return 0.0
    return 1000 * ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Streaming clients that cost little.")
    parser.add_argument("url")
    parser.add_argument("--model", default="null")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000)
    arguments = parser.parse_args()
    result = run(arguments.url, arguments.model, arguments.clients, arguments.tokens)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
