from __future__ import annotations

import subprocess
import sys

import msgspec

from server.child import Assignment
from server.settings import Settings

CHILD = """
import gc
from server.child import run_child

run_child(lambda assignment: print(assignment.name, gc.get_freeze_count(), len(gc.get_objects())))
"""


def test_imported_code_is_no_garbage_to_look_through() -> None:
    settings = Settings().model_dump(mode="json")
    line = msgspec.json.encode(Assignment("api-0", settings, "nowhere", "nowhere")) + b"\n"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(line)
        child.stdin.flush()  # and left open: its end would end the child
        name, frozen, watched = child.stdout.readline().split()
        assert child.wait(60) == 0
    assert name == b"api-0"
    assert int(frozen) > 10 * int(watched)
