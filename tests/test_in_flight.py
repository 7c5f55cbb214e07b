from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from server.in_flight import InFlight, fingerprint, left_in_flight
from server.messages import ImageRef, SamplingParams, Submit

FIRST, SECOND = b"a" * 16, b"b" * 16

SUBMIT = Submit(1, b"\1\0\0\0", [ImageRef(b"d" * 16, 0, 4)], SamplingParams(seed=7), 5, [7])


def test_tells_what_was_noted_last(tmp_path: Path) -> None:
    assert left_in_flight(tmp_path) == frozenset(), "there was no engine yet"
    with closing(InFlight(tmp_path)) as in_flight:
        assert left_in_flight(tmp_path) == frozenset()
        in_flight.note([FIRST, SECOND])
        assert left_in_flight(tmp_path) == {FIRST, SECOND}
        in_flight.note([SECOND])
        assert left_in_flight(tmp_path) == {SECOND}
        in_flight.note([])
        assert left_in_flight(tmp_path) == frozenset()


def test_a_new_engine_begins_with_nothing(tmp_path: Path) -> None:
    with closing(InFlight(tmp_path)) as in_flight:
        in_flight.note([FIRST])
    with closing(InFlight(tmp_path)):
        assert left_in_flight(tmp_path) == frozenset()


def test_it_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from server.in_flight import InFlight;"
        "InFlight(pathlib.Path(sys.argv[1])).note([b'a' * 16]); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], check=False)
    assert left_in_flight(tmp_path) == {FIRST}


def test_it_needs_no_room_on_the_disk_later(tmp_path: Path) -> None:
    with closing(InFlight(tmp_path)) as in_flight:
        (page,) = tmp_path.iterdir()
        taken = page.stat().st_blocks
        in_flight.note(os.urandom(16) for _ in range(1024))
        assert page.stat().st_blocks == taken
        assert page.stat().st_mode & 0o077 == 0


def test_the_fingerprint_is_of_the_input_alone() -> None:
    def changed(**fields: object) -> bytes:
        return fingerprint(msgspec.structs.replace(SUBMIT, **fields))

    same = fingerprint(SUBMIT)
    assert changed(id=2, sampling=SamplingParams(seed=8), max_tokens=9) == same
    assert changed(prompt=b"\2\0\0\0") != same
    assert changed(images=[]) != same
    assert changed(images=[ImageRef(b"e" * 16, 0, 4)]) != same
    assert changed(images=[ImageRef(b"d" * 16, 1, 4)]) != same
