"""A process that builds grammars to find out whether that can be done: it may be killed while it
does, whatever the library is busy with.

Each line on standard input is a grammar, each line on standard output what the library has against
it, empty where it has nothing. A first empty line says that the process is ready. When standard
input closes, whoever asked is gone, and the process goes at once.
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import sys
import threading
from pathlib import Path

import msgspec

from server.frontend.matchers import matcher_factory
from server.frontend.tokenizer import Tokenizer
from server.grammars import MatcherFactory
from server.messages import Grammar
from server.model.spec import ModelSpec

MEMORY_MAX_BYTES = 2 * 2**30
"""What builds within less here takes as little in the engine."""


def main(checkpoint: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    vocab_size = ModelSpec.load(checkpoint).text.vocab_size
    factory = matcher_factory(Tokenizer.load(checkpoint), vocab_size)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    print(flush=True)
    while True:
        print(objection(factory, msgspec.json.decode(lines.get(), type=Grammar)), flush=True)


def objection(factory: MatcherFactory, grammar: Grammar) -> str:
    """One line."""
    try:
        factory.make(grammar)
    except ValueError as error:
        return " ".join(str(error).split()) or "unknown"
    return ""


def _read(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
