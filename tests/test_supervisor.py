from __future__ import annotations

from server.children import API, ENGINE
from server.settings import Settings
from server.supervisor import RestartPolicy, Unit, units


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
