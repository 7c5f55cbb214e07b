"""What floods cost others: idle connections and slow senders, a full queue, a greedy key.

    python -m benchmarks.floods [--model FOLDER] [--rounds 6] [--only connections|queue|fairness]

Each part starts a daemon of its own, on loopback, and measures both sides in turn in one run.
Targets: 500 idle connections and 50 slow senders delay a normal request by at most 10 %; each
refused request of a full queue has its answer within 50 ms; a key with one request waits at most
two step times longer beside a key with 500 than alone. Clients and daemon share the machine, so run
it where nothing else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from benchmarks.daemon import chat, daemon, post

IDLE, SLOW = 500, 50
REQUESTS = 40
OPEN_MAX, REFUSED = 40, 2000
CROWD = 500
LONE = 10
PAUSE_S = 0.5
# Idle connections and slow senders.


async def connections(model: str | None, rounds: int) -> None:
    async with daemon(model) as url:
        alone: list[float] = []
        beside: list[float] = []
        async with aiohttp.ClientSession() as http:
            await normal(http, url)
            for _ in range(rounds):
                alone += await normal(http, url)
                async with flood(url):
                    beside += await normal(http, url)
    first, second = statistics.median(alone), statistics.median(beside)
    print(f"connections: {len(alone)} requests each, median {first * 1e3:.2f} ms alone,")
    print(f"  {second * 1e3:.2f} ms beside {IDLE} idle connections and {SLOW} slow senders:")
    print(f"  {second / first - 1:+.1%} (target: at most +10 %)")


async def normal(http: aiohttp.ClientSession, url: str) -> list[float]:
    seconds = []
    for number in range(REQUESTS):
        status, passed_s = await post(http, url, chat(number, 8))
        assert status == 200
        seconds.append(passed_s)
    return seconds


@contextlib.asynccontextmanager
async def flood(url: str) -> AsyncIterator[None]:
    """Connections that say nothing more, and others that send a byte now and then."""
    senders = [asyncio.create_task(idle(url)) for _ in range(IDLE)]
    senders += [asyncio.create_task(send_slowly(url)) for _ in range(SLOW)]
    await asyncio.sleep(2)
    try:
        yield
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)


async def idle(url: str) -> None:
    while True:
        reader, writer = await connect(url)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        while await reader.read(4096):
            pass  # until the daemon closes it
        writer.close()


async def send_slowly(url: str) -> None:
    while True:
        _, writer = await connect(url)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
            b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.5)
        writer.close()


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


# A full queue.


async def queue(model: str | None, rounds: int) -> None:
    async with daemon(model, "--max-waiting-requests", str(OPEN_MAX)) as url:
        refused: list[float] = []
        floor: list[float] = []
        statuses: list[int] = []
        limit = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=limit) as http:
            full = [
                asyncio.create_task(keep_asking(http, url, 10_000 * (n + 1), 400))
                for n in range(OPEN_MAX)
            ]
            await asyncio.sleep(2)
            for _ in range(rounds):
                floor += await get_floor(http, url)
                for number in range(REFUSED // rounds):
                    status, passed_s = await post(http, url, chat(number, 8))
                    statuses.append(status)
                    if status == 429:
                        refused.append(passed_s)
            for task in full:
                task.cancel()
            await asyncio.gather(*full, return_exceptions=True)
    lost = len(statuses) - len(refused) - statuses.count(200)
    print(f"queue: {len(refused)} refused of {len(statuses)}, {lost} lost;")
    print(f"  {tail(refused)} (target: at most 50 ms); floor, GET /livez: {tail(floor)}")


async def get_floor(http: aiohttp.ClientSession, url: str) -> list[float]:
    seconds = []
    for _ in range(50):
        began_s = time.perf_counter()
        async with http.get(f"{url}/livez") as response:
            await response.read()
        seconds.append(time.perf_counter() - began_s)
    return seconds


async def keep_asking(
    http: aiohttp.ClientSession, url: str, first: int, max_tokens: int, key: str = ""
) -> None:
    """Always has one request open. One that was refused comes again when a client would send it:
    hundreds that come at once would measure how fast the daemon reads."""
    for number in itertools.count(first):
        status, _ = await post(http, url, chat(number, max_tokens), key)
        if status == 429:
            await asyncio.sleep(PAUSE_S)


def tail(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50 * 1e3:.1f}, p99 {p99 * 1e3:.1f}, longest {ordered[-1] * 1e3:.1f} ms"


# A greedy key.


async def fairness(model: str | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text("greedy greedy-key\nmodest modest-key\n")
        async with daemon(model, "--api-key-file", str(keys)) as url:
            limit = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=limit) as http:
                await measure_fairness(http, url, rounds)


async def measure_fairness(http: aiohttp.ClientSession, url: str, rounds: int) -> None:
    numbers = itertools.count()
    alone: list[float] = []
    beside: list[float] = []
    steps: list[float] = []
    for _ in range(rounds):
        for _ in range(LONE):
            alone.append(await first_token_s(http, url, next(numbers)))
        crowd = [
            asyncio.create_task(keep_asking(http, url, 1000 * (n + 1), 200, "greedy-key"))
            for n in range(CROWD)
        ]
        await asyncio.sleep(3)
        before = await step_sums(http, url)
        for _ in range(LONE):
            beside.append(await first_token_s(http, url, next(numbers)))
        after = await step_sums(http, url)
        steps.append((after[0] - before[0]) / (after[1] - before[1]))
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        await asyncio.sleep(3)
    step_s, first, second = map(statistics.median, (steps, alone, beside))
    print(f"fairness: time to the first token {first * 1e3:.1f} ms alone, {second * 1e3:.1f} ms")
    print(f"  beside a key with {CROWD}, whose steps take {step_s * 1e3:.1f} ms each:")
    print(f"  {(second - first) / step_s:.1f} steps longer (target: at most 2)")


async def first_token_s(http: aiohttp.ClientSession, url: str, number: int) -> float:
    headers = {"authorization": "Bearer modest-key"}
    began_s = time.perf_counter()
    async with http.post(
        f"{url}/v1/chat/completions", json=chat(number, 2, stream=True), headers=headers
    ) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if line.startswith(b"data: {") and has_content(line):
                return time.perf_counter() - began_s
    raise AssertionError("a stream without a token")


def has_content(line: bytes) -> bool:
    choices = json.loads(line.removeprefix(b"data: ")).get("choices", [])
    return any(c["delta"].get("content") or c["finish_reason"] for c in choices)


async def step_sums(http: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Seconds and number of all steps so far."""
    headers = {"authorization": "Bearer modest-key"}
    async with http.get(f"{url}/metrics", headers=headers) as response:
        lines = (await response.text()).splitlines()
    values = dict(
        line.rsplit(" ", 1) for line in lines if line.startswith("internvl_step_seconds_")
    )
    return (
        float(values["internvl_step_seconds_sum"]),
        float(values["internvl_step_seconds_count"]),
    )


PARTS = {"connections": connections, "queue": queue, "fairness": fairness}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a checkpoint; default: the demo model")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            await part(arguments.model, arguments.rounds)


if __name__ == "__main__":
    asyncio.run(main())
