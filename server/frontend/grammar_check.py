"""Whether grammars can be built, found out in a process that is killed when it takes too long.

No grammar reaches the engine without that: a schema of a few lines can keep the library busy for
hours, and nothing but the end of the process stops it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from server.errors import invalid, shutting_down
from server.frontend.schema_check import costliest
from server.messages import Grammar, GrammarKind

START_S = 60
VERDICTS_KEPT = 256
TOO_LARGE = "it is too large"

REASONS = {
    "look-around": "look-around is not supported",
    "regex parse error": "a regular expression is not valid",
    "Unsatisfiable": "no value satisfies it",
    "does not exist": "a reference leads nowhere",
    "too large": TOO_LARGE,
    "Unable to determine": TOO_LARGE,
    "fuel": TOO_LARGE,
    "increase limit": TOO_LARGE,
    "too many expressions": TOO_LARGE,
    "Too many items": TOO_LARGE,
}
"""Our words for what the grammar library says, by words of its own."""

log = logging.getLogger(__name__)


class GrammarChecker:
    """Says whether grammars can be built, and remembers it. Safe to use from several threads.

    The process is started by the first question. Close the checker to end it.

    Args:
        checkpoint: whose vocabulary answers are made of.
        timeout_s: longest time for one grammar; others wait behind it.
    """

    def __init__(self, checkpoint: Path, timeout_s: float) -> None:
        self._checkpoint = checkpoint
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._closed = False
        self._verdict = functools.lru_cache(maxsize=VERDICTS_KEPT)(self._ask)

    def check(self, grammar: Grammar, param: str) -> None:
        """Raises:
        ApiError: 400; the grammar cannot be built, or not in time.
        """
        reason = self._verdict(grammar)
        if not reason:
            return
        code, what = "invalid_schema", "schema"
        if grammar.kind is not GrammarKind.JSON_SCHEMA:
            code, what = "invalid_grammar", "grammar"
        raise invalid(f"Invalid {what} in '{param}': {reason}.", param=param, code=code)

    def close(self) -> None:
        """Does not wait for a question that is being answered: it fails."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._turn:
            self._end()

    def _ask(self, grammar: Grammar) -> str:
        """Why the grammar cannot be built; empty when it can.

        Raises:
            ApiError: 503; the checker is closed.
        """
        question = msgspec.json.encode(grammar) + b"\n"
        with self._turn:
            try:
                said = self._say(question)
            except OSError:  # the process has ended since the question before
                self._end()
                said = self._say(question)
            if not said:
                self._end()
        if self._closed:
            raise shutting_down()
        if said is None:
            return f"it takes longer than {self._timeout_s:g} s to build{_advice(grammar)}"
        if said == b"":
            return f"{TOO_LARGE}{_advice(grammar)}"
        words = said.decode().strip()
        known = (reason for sign, reason in REASONS.items() if sign in words)
        return next(known, "it is not valid") if words else ""

    def _say(self, question: bytes) -> bytes | None:
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(question)
        process.stdin.flush()
        return _line(process, self._timeout_s)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise shutting_down()
        if self._process is None:
            command = [sys.executable, "-P", "-m", "server.grammar_process", str(self._checkpoint)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # where the library writes what it finds odd
            )
            if _line(self._process, START_S) != b"\n":
                self._end()
                raise RuntimeError("the process that checks grammars does not start")
            log.debug("grammars are checked by process %d", self._process.pid)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what could not be written to it
                    pipe.close()


def _line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """What the process says next; empty when it has ended, None when it says nothing in time."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return None
    return process.stdout.readline()


def _advice(grammar: Grammar) -> str:
    """Which keyword to look at, where the grammar holds JSON schemas."""
    for schema in _schemas(grammar):
        if found := costliest(schema):
            return f"; see '{found[0]}' at '{found[1]}' first"
    return ""


def _schemas(grammar: Grammar) -> Iterator[Any]:
    """What may be JSON schemas: the whole text, or what follows `%json` in a line."""
    for line in grammar.text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            yield json.loads(line.partition(": %json ")[2] or line)
