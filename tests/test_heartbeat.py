from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from server.heartbeat import Heartbeat


def test_nothing_beats_before_the_loop_runs(tmp_path: Path) -> None:
    with Heartbeat(tmp_path) as heartbeat:
        assert heartbeat.age_s == 0.0
        heartbeat.beat()
        time.sleep(0.05)
        assert 0.05 <= heartbeat.age_s < 5
        heartbeat.forget()
        assert heartbeat.age_s == 0.0


def test_other_processes_feel_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from server.heartbeat import Heartbeat;"
        "Heartbeat(pathlib.Path(sys.argv[1])).beat()"
    )
    with Heartbeat(tmp_path) as heartbeat:
        subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], check=True)
        assert heartbeat.age_s > 0.0


def test_only_this_user_can_write_it(tmp_path: Path) -> None:
    with Heartbeat(tmp_path):
        assert (tmp_path / "engine.heartbeat").stat().st_mode & 0o077 == 0


def test_it_needs_no_room_on_the_disk_later(tmp_path: Path) -> None:
    with Heartbeat(tmp_path):
        assert (tmp_path / "engine.heartbeat").stat().st_blocks > 0
