"""Clients of all kinds: plain and streaming, with pictures, leaving early, talking nonsense.

Every text is another one, so no input of a killed engine comes again.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.e2e.daemon import MODEL, Daemon, image_part, text_part
from tests.hostile.test_hostile import CATEGORIES, ask
from tests.soak.ledger import RESTARTING, Ledger, stream_outcome

CLIENTS = 6
PICTURES = ("rgb_square.png", "rgb_tall.png", "gray.png", "palette.png", "rgba.png", "rgb_wide.jpg")
HOSTILE = [
    case
    for name in ("json", "numbers", "lists", "meaning", "pictures")
    for case in CATEGORIES[name]
]


class Client:
    """One that asks again and again until told to stop."""

    def __init__(self, daemon: Daemon, ledger: Ledger, chance: random.Random) -> None:
        self._daemon = daemon
        self._ledger = ledger
        self._chance = chance
        self._numbers = itertools.count()
        self._kinds: dict[str, Callable[[str], None]] = {
            "plain": self._plain,
            "stream": self._stream,
            "disconnect": self._disconnect,
            "impatient": self._impatient,
            "hostile": self._hostile,
        }

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            kind = self._chance.choice(list(self._kinds))
            try:
                self._kinds[kind](kind)
            except (httpx.HTTPError, OSError, ValueError) as failure:
                self._ledger.blame(kind, repr(failure))

    def _body(self, **fields: Any) -> dict[str, Any]:
        content = [text_part(f"{self._chance.getrandbits(64)} {next(self._numbers)}: what is it?")]
        for _ in range(self._chance.choice((0, 0, 1, 2))):
            content.append(image_part(self._chance.choice(PICTURES)))
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._chance.randint(1, 60),
            "ignore_eos": True,
            **fields,
        }

    @contextmanager
    def _streaming(self, body: dict[str, Any]) -> Iterator[httpx.Response]:
        url = f"{self._daemon.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60) as response:
            yield response

    def _refused(self, kind: str, response: httpx.Response) -> None:
        code = response.json()["error"]["code"]
        self._ledger.end(kind, code)
        if code not in RESTARTING:
            self._ledger.blame(kind, f"{response.status_code} {code}")
        time.sleep(0.2)

    def _plain(self, kind: str) -> None:
        choices = self._chance.choice((1, 1, 3))
        url = f"{self._daemon.url}/v1/chat/completions"
        response = httpx.post(url, json=self._body(n=choices), timeout=60)
        if response.status_code != 200:
            self._refused(kind, response)
            return
        reasons = [choice["finish_reason"] for choice in response.json()["choices"]]
        if reasons != ["length"] * choices:
            self._ledger.blame(kind, f"ended with {reasons}")
        self._ledger.end(kind, "done")

    def _stream(self, kind: str) -> None:
        choices = self._chance.choice((1, 1, 3))
        with self._streaming(self._body(n=choices)) as response:
            if response.status_code != 200:
                response.read()
                self._refused(kind, response)
                return
            outcome = stream_outcome(response.iter_lines(), choices)
        self._ledger.end(kind, outcome)
        if outcome != "done" and outcome not in RESTARTING:
            self._ledger.blame(kind, outcome)

    def _disconnect(self, kind: str) -> None:
        """Leaves a stream in its middle."""
        with self._streaming(self._body(max_tokens=400)) as response:
            for _ in itertools.islice(response.iter_raw(), self._chance.randint(0, 9)):
                pass
        self._ledger.end(kind, "left")

    def _impatient(self, kind: str) -> None:
        """Gives up a plain answer."""
        url = f"{self._daemon.url}/v1/chat/completions"
        patience = httpx.Timeout(60, read=self._chance.uniform(0.01, 0.4))
        try:
            httpx.post(url, json=self._body(max_tokens=400), timeout=patience)
        except httpx.ReadTimeout:
            self._ledger.end(kind, "left")
        else:
            self._ledger.end(kind, "answered")

    def _hostile(self, kind: str) -> None:
        case = self._chance.choice(HOSTILE)
        status, code = ask(self._daemon, case.wire)
        self._ledger.end(kind, code if code in RESTARTING else "answered")
        if (status, code) != (case.status, case.code) and code not in RESTARTING:
            self._ledger.blame(kind, f"{case.name}: {status} {code}")


@contextmanager
def traffic(daemon: Daemon, ledger: Ledger, seed: int) -> Iterator[None]:
    """Clients ask while the block runs; behind it all of them have their answers."""
    stop = threading.Event()
    clients = [Client(daemon, ledger, random.Random(f"{seed} {n}")) for n in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=90)
    assert not any(thread.is_alive() for thread in threads), "a request never ended"
