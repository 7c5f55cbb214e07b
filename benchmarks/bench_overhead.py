"""What `internvl-serve bench` adds to what it measures.

    python -m benchmarks.bench_overhead

The null server answers at set times, in a process of its own. A client of thirty lines over a bare
socket asks it the same, one request of each in turn, so that noise meets both alike. Ratios near 1
say that the bench measures the server; CPU per chunk says from which load on it measures itself.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

from benchmarks.null_server import MODEL, NullServer
from server.bench.client import Server

FIRST_S, GAP_S = 0.2, 0.02
TOKENS, REPEATS = 32, 12
CHUNKS = 4000


@dataclass(frozen=True, slots=True)
class Seen:
    first_token_s: float
    end_to_end_s: float


def serve(first_s: float, gap_s: float, told: Connection) -> None:
    async def main() -> None:
        told.send(await NullServer(first_s, gap_s).start())
        await asyncio.Event().wait()

    asyncio.run(main())


async def independent(url: str, body: bytes) -> Seen:
    """The other client: a socket, and a look at the clock for each line with content."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST {address.path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
    )
    began = time.perf_counter()
    writer.write(head.encode() + b"\r\n\r\n" + body)
    times = []
    while line := await reader.readline():
        if b'"content": "a' in line:
            times.append(time.perf_counter() - began)
        if b"[DONE]" in line:
            break
    writer.close()
    return Seen(times[0], times[-1])


async def compare(url: str) -> None:
    fields = {"messages": [{"role": "user", "content": "one"}], "max_tokens": TOKENS}
    body = json.dumps({"model": MODEL, "stream": True, **fields}).encode()
    server = Server(url, MODEL, "none")
    ours, theirs = [], []
    for _ in range(REPEATS):
        measured, _ = await server.ask(fields, epoch_s=time.perf_counter(), due_s=0.0)
        assert measured.error is None and measured.first_token_s is not None
        ours.append(Seen(measured.first_token_s, measured.end_to_end_s))
        theirs.append(await independent(url, body))
    await server.close()
    for name in ("first_token_s", "end_to_end_s"):
        a, b = (statistics.median(getattr(seen, name) for seen in of) for of in (ours, theirs))
        print(f"{name:16} bench {a * 1000:8.2f} ms   bare socket {b * 1000:8.2f} ms   {a / b:.4f}")


async def cost(url: str) -> None:
    """CPU of one request with many chunks that come as fast as they can."""
    server = Server(url, MODEL, "none")
    fields = {"messages": [{"role": "user", "content": "one"}], "max_tokens": CHUNKS}
    cpu_s = time.process_time()
    measured, _ = await server.ask(fields, epoch_s=time.perf_counter(), due_s=0.0)
    cpu_s = time.process_time() - cpu_s
    await server.close()
    assert measured.output_tokens == CHUNKS
    print(f"CPU of the bench {cpu_s / CHUNKS * 1e6:6.1f} us per chunk")


def main() -> None:
    context = multiprocessing.get_context("spawn")
    for first_s, gap_s, work in ((FIRST_S, GAP_S, compare), (0.0, 0.0, cost)):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(first_s, gap_s, there), daemon=True)
        process.start()
        asyncio.run(work(here.recv()))
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
