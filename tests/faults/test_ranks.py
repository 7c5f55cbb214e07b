"""Ranks that die, stop, or lose their place: the group is named, ended and back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import EXACT
from tests.e2e.daemon import Daemon, running
from tests.e2e.streams import check_answer, check_cut, start_streams
from tests.faults.injection import injected

pytestmark = pytest.mark.timeout(300)

STARTED = re.compile(r"(engine|rank-\d+) started \(pid (\d+)\)")
OFTEN = ("--max-restarts", "9", "--quarantine-deaths", "9")
STREAMS = 16

LOSING = """
from server.distributed.plans import Launch, OrderSender
send = OrderSender.send

def losing(self, order):
    if isinstance(order, Launch) and fault.exists():
        fault.unlink()
    else:
        send(self, order)

OrderSender.send = losing
"""
"""One plan does not reach the other ranks."""


def ranks(daemon: Daemon) -> dict[str, psutil.Process]:
    """The ranks of the last start by name."""
    last = dict(STARTED.findall(daemon.log))
    return {name: psutil.Process(int(pid)) for name, pid in last.items()}


def check_group_is_lost_and_back(
    daemon: Daemon, strike: Callable[[], None], limit_s: float
) -> None:
    """All streams end with an error event within `limit_s` of the strike; another group answers."""
    before, supervisor = ranks(daemon), daemon.process.pid
    streams, threads = start_streams(daemon, STREAMS)
    strike()
    struck_s = time.monotonic()
    for lines, thread in zip(streams, threads, strict=True):
        thread.join(timeout=max(0.0, limit_s - (time.monotonic() - struck_s)))
        assert not thread.is_alive(), daemon.log
        check_cut(lines, "engine_died")
    daemon.wait_until_ready()
    check_answer(daemon)
    after = ranks(daemon)
    assert after.keys() == before.keys()
    assert not {rank.pid for rank in before.values()} & {rank.pid for rank in after.values()}
    assert (daemon.process.pid, daemon.process.poll()) == (supervisor, None)


@pytest.mark.parametrize(
    ("count", "flags"),
    [
        pytest.param(3, ("--tensor-parallel-size", "3"), id="3 ranks"),
        pytest.param(
            4,
            ("--tensor-parallel-size", "2", "--pipeline-parallel-size", "2"),
            id="2 stages of 2",
        ),
    ],
)
def test_each_rank_may_be_killed(count: int, flags: tuple[str, ...]) -> None:
    with running(*EXACT, *OFTEN, *flags) as daemon:
        names = list(ranks(daemon))
        assert len(names) == count
        for name in names:
            victim = ranks(daemon)[name]
            check_group_is_lost_and_back(daemon, victim.kill, limit_s=5)
            daemon.logged(rf"{name} \(pid {victim.pid}\) was ended by SIGKILL")


@pytest.mark.parametrize("name", ["engine", "rank-1"])
def test_a_rank_that_stops_is_found(name: str) -> None:
    flags = ("--tensor-parallel-size", "2", "--step-timeout-s", "4")
    with running(*EXACT, *OFTEN, *flags) as daemon:
        check_group_is_lost_and_back(daemon, ranks(daemon)[name].suspend, limit_s=12)
        daemon.logged(rf"{name} has stood still for \d+ s: aborted")
        others = {"engine", "rank-1"} - {name}
        assert not any(f"{other} has stood still" in daemon.log for other in others)


def test_an_idle_rank_that_stops_is_found() -> None:
    flags = ("--pipeline-parallel-size", "2", "--step-timeout-s", "4")
    with running(*EXACT, *OFTEN, *flags) as daemon:
        victim = ranks(daemon)["rank-1"]
        victim.suspend()
        while daemon.http.get("/readyz").status_code == 200:
            time.sleep(0.05)
        daemon.logged(r"rank-1 has stood still for \d+ s: aborted")
        daemon.wait_until_ready()
        check_answer(daemon)


def test_a_rank_for_which_others_wait_too_long_is_named() -> None:
    flags = ("--tensor-parallel-size", "2", "--collective-timeout-s", "4")
    with running(*EXACT, *OFTEN, *flags) as daemon:
        check_group_is_lost_and_back(daemon, ranks(daemon)["rank-1"].suspend, limit_s=20)
        daemon.logged("rank-1 has stood still for")
        assert "engine has stood still" not in daemon.log


def test_a_rank_that_loses_its_place_is_named(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    before = injected(tmp_path, fault, LOSING)
    with Daemon(*EXACT, *OFTEN, "--tensor-parallel-size", "2", before=before) as daemon:
        daemon.wait_until_ready()
        check_group_is_lost_and_back(daemon, fault.touch, limit_s=10)
        found = daemon.logged(r"rank 1: plan (\d+) came where plan (\d+) was due")
        assert int(found[1]) == int(found[2]) + 1
