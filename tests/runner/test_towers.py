from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from server.distributed.meeting import Meeting
from server.model.spec import parse_config
from server.runner.towers import settle_towers, slow_link
from server.settings import Settings
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)


class Notes:
    """A meeting that only remembers."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def tell(self, key: str, value: str) -> None:
        self._notes[key] = value

    def ask(self, key: str) -> str:
        return self._notes[key]


def settle(settings: Settings, device: str, ranks: int) -> list[int | None]:
    """What each rank comes to, the leader first."""
    meeting = cast(Meeting, Notes())
    return [
        settle_towers(
            settings,
            REAL,
            meeting,
            rank=rank,
            device=torch.device(device),
            dtype=torch.bfloat16,
        ).vision_tensor_parallel_size
        for rank in range(ranks)
    ]


def pretend(monkeypatch: pytest.MonkeyPatch, *, reach: bool, free_gb: int) -> None:
    monkeypatch.setattr("torch.cuda.can_device_access_peer", lambda *_: reach)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda *_: (free_gb * 10**9, 0))


def test_ranks_of_a_cpu_share_one_tower() -> None:
    assert settle(Settings(tensor_parallel_size=4), "cpu", 4) == [4] * 4


@pytest.mark.parametrize(("reach", "chosen"), [(True, 4), (False, 2)])
def test_the_leader_decides_for_all_cards(
    monkeypatch: pytest.MonkeyPatch, reach: bool, chosen: int
) -> None:
    pretend(monkeypatch, reach=reach, free_gb=47)
    assert settle(Settings(tensor_parallel_size=4), "cuda:0", 4) == [chosen] * 4


def test_the_operator_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, reach=False, free_gb=140)
    settings = Settings(tensor_parallel_size=4, vision_tensor_parallel_size=4)
    assert settle(settings, "cuda:0", 4) == [4] * 4


@pytest.mark.parametrize(
    ("flags", "slow"),
    [
        ({"tensor_parallel_size": 2, "nnodes": 2}, True),
        ({"tensor_parallel_size": 2, "nnodes": 2, "pipeline_parallel_size": 2}, False),
    ],
)
def test_hosts_are_far_apart(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], slow: bool
) -> None:
    pretend(monkeypatch, reach=True, free_gb=0)
    assert slow_link(Settings(**flags)) == slow
