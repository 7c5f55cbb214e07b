"""An engine that speaks the real wire and says what a test tells it to, from a thread."""

from __future__ import annotations

import queue
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from server.ipc import EngineEndpoint
from server.messages import (
    Cancel,
    Delta,
    FinishReason,
    Gauges,
    Hello,
    Outputs,
    Ready,
    Submit,
    TokenLogprob,
)

READY = Ready(
    max_model_len=512,
    max_num_seqs=8,
    kv_blocks=64,
    kv_block_size=16,
    step_token_budget=256,
    dtype="float32",
    device="cpu",
    ranks=1,
)
RUNNING = Gauges(requests_running=1, kv_blocks_used=16, kv_blocks=64)

Script = Callable[[Submit], Sequence[Delta]]


def silent(_: Submit) -> Sequence[Delta]:
    return []


def says(
    *steps: Sequence[int], finish: FinishReason = FinishReason.LENGTH, cached_tokens: int = 0
) -> Script:
    """Answers every request with one delta per entry of `steps`; the last one carries `finish`."""

    def script(submit: Submit) -> Sequence[Delta]:
        return [
            Delta(
                submit.id,
                list(ids),
                finish if number == len(steps) else None,
                cached_tokens if number == 1 else 0,
            )
            for number, ids in enumerate(steps, start=1)
        ]

    return script


def answers_all(submit: Submit) -> Sequence[Delta]:
    """One token for whatever is asked, with all log probabilities that were."""
    scored = [TokenLogprob(-0.5, [5, 6], [-0.5, -1.0])]
    prompt_scored = scored * (len(submit.prompt) // 4 - 1)
    return [
        Delta(
            submit.id,
            [5],
            FinishReason.LENGTH,
            logprobs=None if submit.sampling.logprobs is None else scored,
            prompt_logprobs=None if submit.prompt_logprobs is None else prompt_scored,
        )
    ]


@dataclass
class Received:
    """A request as the engine got it."""

    submit: Submit
    pictures: list[bytes]

    @property
    def prompt(self) -> list[int]:
        return list(struct.unpack(f"<{len(self.submit.prompt) // 4}i", self.submit.prompt))


@dataclass
class FakeEngine:
    """Start it with `with`. Leaving the block is an engine that died."""

    run_dir: Path
    script: Script = silent
    ready: Ready | None = READY
    received: list[Received] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    hellos: int = 0

    def __post_init__(self) -> None:
        self._outbox: queue.SimpleQueue[tuple[Outputs | Ready, bool]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        """Forgets what it got, for the next test of a shared server."""
        self.script = silent
        self.received.clear()
        self.cancelled.clear()

    def send(self, *deltas: Delta, gauges: Gauges = RUNNING) -> None:
        self._outbox.put((Outputs(list(deltas), gauges), False))

    def send_all(self, outputs: Outputs) -> None:
        """To all API processes."""
        self._outbox.put((outputs, True))

    def become_ready(self) -> None:
        self._outbox.put((READY, False))

    def wait_for_requests(self, count: int = 1) -> list[Received]:
        until(lambda: len(self.received) >= count)
        return self.received

    def wait_for_cancels(self, count: int = 1) -> list[int]:
        until(lambda: len(self.cancelled) >= count)
        return self.cancelled

    def _run(self) -> None:
        endpoint = EngineEndpoint(self.run_dir)
        peer, peers = b"", set[bytes]()
        try:
            while not self._stop.is_set():
                for peer, message, pictures in endpoint.receive(0.002):
                    if isinstance(message, Submit):
                        self.received.append(Received(message, [bytes(p) for p in pictures]))
                        # One message per step, as the real engine sends them.
                        for delta in self.script(message):
                            endpoint.send(peer, Outputs([delta], RUNNING))
                    elif isinstance(message, Cancel):
                        self.cancelled.append(message.id)
                    elif isinstance(message, Hello):
                        self.hellos += 1
                        peers.add(peer)
                        if self.ready is not None:
                            endpoint.send(peer, self.ready)
                while not self._outbox.empty():
                    news, to_all = self._outbox.get()
                    for receiver in peers if to_all else (peer,):
                        endpoint.send(receiver, news)
        finally:
            endpoint.close()


def until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.002)
