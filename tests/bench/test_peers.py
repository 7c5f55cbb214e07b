"""The comparison with peers: its rows, how servers are started, and what becomes of its figures."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peers import machine, record
from benchmarks.peers.__main__ import ROWS
from benchmarks.peers.record import Pass, Record, Row
from benchmarks.peers.report import report
from benchmarks.peers.servers import PEERS, Peer, installed
from server.bench.plan import read_plan
from server.bench.summary import Spread, Summary


def spread(milliseconds: float) -> Spread:
    return Spread(*[milliseconds] * 6)


def row(title: str, tokens_per_s: float, *, foreign: float = 0.0) -> Row:
    summary = Summary(
        completed=8,
        failed=0,
        seconds=1.0,
        requests_per_s=8.0,
        output_tokens_per_s=tokens_per_s,
        total_tokens_per_s=tokens_per_s,
        prompt_tokens=8,
        cached_tokens=0,
        output_tokens=8,
        ttft_ms=spread(20),
        tpot_ms=spread(5),
        itl_ms=None,
        e2e_ms=None,
        good_requests_per_s=None,
        lag_p99_ms=0.0,
        client_cpu_share=0.0,
    )
    return Row(title, summary, foreign)


def passes(peer: str, *rates: float, foreign: float = 0.0) -> list[Pass]:
    return [
        Pass(peer, number, 1.5 + number, 0.001, 10**9, [row("text, c=1", rate, foreign=foreign)])
        for number, rate in enumerate(rates)
    ]


def test_there_are_sixteen_rows() -> None:
    titles = {(run.title, load.kind, load.value) for run in read_plan(ROWS) for load in run.loads()}
    assert len(titles) == 16
    assert all(run.output_tokens == 64 for run in read_plan(ROWS))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_command_names_checkpoint_or_files_and_port(peer: Peer) -> None:
    command = peer.command(Path("a folder/mid"), 8123)
    assert any("8123" in word for word in command)
    assert any("a folder/mid" in word or peer.name in word for word in command)
    assert not any("{" in word for word in command)


def test_ours_is_always_installed() -> None:
    assert {"ours", "ours-int8"} <= set(installed())


def test_medians_and_ratios(tmp_path: Path) -> None:
    measured = Record({"cpu": "a chip"}, [*passes("ours", 10, 90, 30), *passes("vllm", 20)])
    record.save(measured, tmp_path / "result.json")
    loaded = record.load(tmp_path / "result.json")
    assert loaded == measured
    lines = report(measured).splitlines()
    assert "cpu: a chip" in lines[0]
    assert "| row | ours | vllm | ours / vllm |" in lines
    assert "| text, c=1 | 30 · 20 · 5.0 | 20 · 20 · 5.0 | 1.50 |" in lines
    assert "| command to the first answer, s | 2.5 | 1.5 |" in lines


def test_a_disturbed_row_is_marked() -> None:
    measured = Record({}, passes("ours", 10, foreign=0.5))
    assert "5.0*" in report(measured)


def test_the_work_of_others_is_seen() -> None:
    """Of processes that are neither the server nor this one."""
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    busy = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
    try:
        server = psutil.Process(idle.pid)
        began_s = time.monotonic()
        cores = machine.Cores(server)
        other = subprocess.Popen([sys.executable, "-c", busy])
        try:
            # Until it has had half a second, whatever else this machine does.
            while sum(psutil.Process(other.pid).cpu_times()[:2]) < 0.5:
                time.sleep(0.05)
            others_s = cores.foreign() * (time.monotonic() - began_s)
            assert others_s >= 0.4
        finally:
            other.kill()
            other.wait()
        assert machine.memory_bytes(server) > 10**6
        assert machine.idle_cores(server, 0.2) < 0.5
    finally:
        idle.kill()
        idle.wait()


def test_our_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that does nothing else, which this one need not be."""

    def own_s() -> float:
        return float(sum(psutil.Process().cpu_times()[:2]))

    monkeypatch.setattr(machine, "_busy_s", own_s)
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        began_s, before_s = time.monotonic(), own_s()
        cores = machine.Cores(psutil.Process(idle.pid))
        while own_s() < before_s + 0.5:
            pass
        assert cores.foreign() * (time.monotonic() - began_s) < 0.1
    finally:
        idle.kill()
        idle.wait()
