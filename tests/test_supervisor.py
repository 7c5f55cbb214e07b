from __future__ import annotations

import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import hosts
from server.children import API, ENGINE
from server.errors import StartupError
from server.settings import Settings
from server.supervisor import RestartPolicy, Supervisor, Unit, check_run_dir, units
from tests.golden import CHECKPOINT


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """A supervisor handles those of its process, which is ours."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def test_each_api_process_lives_alone_and_ranks_live_together() -> None:
    assert units(Settings()) == [Unit(API, ("api-0",)), Unit(ENGINE, ("engine",))]
    assert units(Settings(api_workers=2, tensor_parallel_size=2)) == [
        Unit(API, ("api-0",), 0),
        Unit(API, ("api-1",), 1),
        Unit(ENGINE, ("engine", "rank-1")),
    ]


def test_pauses_double() -> None:
    policy = RestartPolicy(max_restarts=9, window_s=600)
    assert [policy.pause_s(0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_too_many_restarts_in_the_window_are_refused() -> None:
    policy = RestartPolicy(max_restarts=2, window_s=10)
    assert policy.pause_s(0.0) == 0.5
    assert policy.pause_s(5.0) == 1
    assert policy.pause_s(9.9) is None
    assert policy.pause_s(10.0) == 1, "the first restart has left the window"
    assert policy.pause_s(30.0) == 0.5


def test_no_restarts_can_be_allowed() -> None:
    assert RestartPolicy(max_restarts=0, window_s=10).pause_s(0.0) is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("signals_as_before")
def test_a_signal_ends_the_wait_for_a_name(
    monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    def resolve(_: str) -> str:
        signal.raise_signal(signum)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(hosts, "resolve", resolve)
    settings = Settings(
        nnodes=2, tensor_parallel_size=2, master_addr="no-such-host.invalid", join_timeout_s=1
    )
    with pytest.raises(SystemExit) as ended:
        Supervisor(settings, CHECKPOINT, []).run()
    assert ended.value.code == 0


@pytest.mark.usefixtures("signals_as_before")
def test_a_folder_whose_name_is_too_long_for_sockets_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(StartupError, match="set TMPDIR to a folder"):
        Supervisor(Settings(), CHECKPOINT, []).run()
    assert not list(long.iterdir())


def test_the_longest_name_of_a_socket_counts() -> None:
    folder = "/" + 95 * "x"
    check_run_dir(Settings(), folder[:-1])
    for settings, excess in ((Settings(), 1), (Settings(api_workers=16), 7)):
        with pytest.raises(StartupError, match=f"whose name is {excess} bytes shorter"):
            check_run_dir(settings, folder)
