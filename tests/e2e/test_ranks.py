"""Several ranks on one host: the same answers, and one of them dying is not the end."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.e2e.conftest import EXACT
from tests.e2e.conversations import request
from tests.e2e.daemon import Daemon, running
from tests.e2e.streams import check_answer, check_cut, start_streams
from tests.e2e.test_golden import CASES, check


def ranks(daemon: Daemon) -> list[psutil.Process]:
    """The engine's processes, the leader first."""
    children = psutil.Process(daemon.process.pid).children()
    engine = [child for child in children if "server.engine_process" in child.cmdline()]
    return sorted(engine, key=lambda child: child.pid)


@pytest.mark.parametrize(
    ("count", "flags"),
    [
        pytest.param(3, ("--tensor-parallel-size", "3"), id="3"),
        pytest.param(
            2,
            ("--tensor-parallel-size", "2", "--vision-tensor-parallel-size", "1"),
            id="2, 2 towers",
        ),
        pytest.param(
            4,
            ("--pipeline-parallel-size", "2", "--tensor-parallel-size", "2"),
            id="2 stages of 2",
        ),
    ],
)
def test_ranks_give_the_authors_answers(count: int, flags: tuple[str, ...]) -> None:
    with running(*EXACT, *flags) as daemon:
        assert daemon.http.get("/version").json()["engine"]["ranks"] == count
        for case in CASES[::3]:
            check(daemon.chat(**request(case)), case)


def test_quantised_ranks_are_served_and_told() -> None:
    with running(*EXACT, "--tensor-parallel-size", "2", "--quantization", "int4") as daemon:
        engine = daemon.http.get("/version").json()["engine"]
        assert engine["quantization"] == "int4"
        assert len(engine["weights_bytes"]) == len(engine["kv_bytes"]) == 2
        first, again = (daemon.chat(**request(CASES[0])) for _ in range(2))
        assert first["choices"] == again["choices"]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_is_replaced_with_all_others(victim: int) -> None:
    with running(*EXACT, "--tensor-parallel-size", "2") as daemon:
        before = ranks(daemon)
        streams, threads = start_streams(daemon, 3)
        before[victim].kill()
        for thread in threads:
            thread.join(timeout=5)
            assert not thread.is_alive()
        for lines in streams:
            check_cut(lines, "engine_died")
        daemon.wait_until_ready()
        check_answer(daemon)
        after = ranks(daemon)
        assert len(after) == 2
        assert not {child.pid for child in before} & {child.pid for child in after}


def test_a_rank_that_stands_still_is_found() -> None:
    flags = ("--tensor-parallel-size", "2", "--collective-timeout-s", "4")
    with running(*EXACT, *flags) as daemon:
        streams, threads = start_streams(daemon, 1)
        ranks(daemon)[1].send_signal(signal.SIGSTOP)
        begin_s = time.monotonic()
        for thread in threads:
            thread.join(timeout=30)
        assert time.monotonic() - begin_s < 20
        check_cut(streams[0], "engine_died")
        daemon.wait_until_ready()
        check_answer(daemon)


def test_ranks_listen_to_nobody_else() -> None:
    """Collectives on one host must not be reachable from another."""
    with running(*EXACT, "--tensor-parallel-size", "2") as daemon:
        for process in ranks(daemon):
            listening = [
                connection.laddr.ip
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert set(listening) == {"127.0.0.1"}, listening
