"""Several ranks on one host: the same answers, the planned memory, and no doors to elsewhere."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import torch

from server.layout import Gpus, Layout, Split
from server.model.footprint import plan_memory
from server.model.packing import plain_bytes
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.settings import Quantization
from tests import golden
from tests.e2e.conftest import EXACT
from tests.e2e.conversations import request
from tests.e2e.daemon import Daemon, running
from tests.e2e.test_golden import CASES, check


def ranks(daemon: Daemon) -> list[psutil.Process]:
    """The engine's processes, the leader first."""
    children = psutil.Process(daemon.process.pid).children()
    engine = [child for child in children if "server.engine_process" in child.cmdline()]
    return sorted(engine, key=lambda child: child.pid)


def check_plan(engine: dict[str, Any], split: Split, quantization: Quantization = "none") -> None:
    """What `/version` tells is what `plan` would have told, but for matrices that a CPU keeps in
    bfloat16."""
    cards = Gpus(split.size * split.stages, 24)
    spec = ModelSpec.load(golden.CHECKPOINT)
    layout = Layout.make(spec, cards, split, quantization, "float32")
    ranks = plan_memory(
        spec,
        ShardPlan.make(spec, split.size, layout.vision_tp, stages=split.stages),
        bytes_per_value=4,
        matrix_bytes=plain_bytes(torch.device("cpu"), torch.float32, torch.float32, spec.dtype),
        quantization=quantization,
    )
    assert (engine["stages"], engine["vision_tp"]) == (split.stages, layout.vision_tp)
    assert engine["weights_bytes"] == [rank.weights for rank in ranks]
    assert engine["activations_bytes"] == [rank.activations for rank in layout.ranks]
    kv_tokens = engine["kv_blocks"] * engine["kv_block_size"]
    assert engine["kv_bytes"] == [rank.kv_token * kv_tokens for rank in layout.ranks]


@pytest.mark.parametrize(
    ("split", "flags"),
    [
        pytest.param(Split(3), ("--tensor-parallel-size", "3"), id="3"),
        pytest.param(
            Split(2, vision_tp=1),
            ("--tensor-parallel-size", "2", "--vision-tensor-parallel-size", "1"),
            id="2, 2 towers",
        ),
        pytest.param(
            Split(2, stages=2),
            ("--pipeline-parallel-size", "2", "--tensor-parallel-size", "2"),
            id="2 stages of 2",
        ),
    ],
)
def test_ranks_give_the_authors_answers(split: Split, flags: tuple[str, ...]) -> None:
    with running(*EXACT, *flags) as daemon:
        engine = daemon.http.get("/version").json()["engine"]
        assert engine["ranks"] == split.size * split.stages
        check_plan(engine, split)
        assert "the plan of memory is wrong" not in daemon.log
        for case in CASES[::3]:
            check(daemon.chat(**request(case)), case)


def test_quantised_ranks_are_served_and_told() -> None:
    with running(*EXACT, "--tensor-parallel-size", "2", "--quantization", "int4") as daemon:
        engine = daemon.http.get("/version").json()["engine"]
        assert engine["quantization"] == "int4"
        check_plan(engine, Split(2), "int4")
        assert "the plan of memory is wrong" not in daemon.log
        first, again = (daemon.chat(**request(CASES[0])) for _ in range(2))
        assert first["choices"] == again["choices"]


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
