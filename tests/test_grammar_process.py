from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from server.messages import Grammar, GrammarKind
from tests.frontend.test_grammar_check import ENDLESS
from tests.golden import CHECKPOINT


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "server.grammar_process", str(CHECKPOINT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n", "it says that it is ready"
        yield process
        process.kill()


def ask(process: subprocess.Popen[bytes], grammar: Grammar) -> None:
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(grammar) + b"\n")
    process.stdin.flush()


def test_it_says_what_is_wrong_in_one_line(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    ask(process, Grammar(GrammarKind.REGEX, "a+"))
    assert process.stdout.readline() == b"\n"
    ask(process, Grammar(GrammarKind.REGEX, "("))
    assert b"regex parse error" in process.stdout.readline()
    ask(process, Grammar(GrammarKind.LARK, "start: \n\nmissing"))
    assert process.stdout.readline().strip()


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_whoever_asked(process: subprocess.Popen[bytes], busy: bool) -> None:
    assert process.stdin is not None
    if busy:
        ask(process, ENDLESS)
        time.sleep(0.1)
    process.stdin.close()
    assert process.wait(timeout=5) == -9
