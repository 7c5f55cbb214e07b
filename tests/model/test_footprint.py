"""What is planned is what is held: for any layout and quantization, within 5 %."""

from __future__ import annotations

import pytest
import torch

from server.demo.layout import CheckpointShape, write_json_files
from server.distributed.groups import SOLO
from server.kernels.attention import KVCache
from server.model.checkpoint import held_bytes
from server.model.dummy import dummy_model
from server.model.footprint import IMAGE_SLOTS, plan_memory
from server.model.packing import OneDnnMatrix
from server.model.quantization import packing
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec, parse_config
from server.settings import Quantization

CPU = torch.device("cpu")
SHAPE = CheckpointShape(
    image_size=56,
    vision_hidden=320,
    vision_layers=2,
    vision_heads=5,
    vision_mlp=640,
    text_hidden=512,
    text_layers=3,
    text_heads=8,
    text_kv_heads=4,
    head_dim=64,
    text_mlp=1408,
    vocab_size=1024,
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return parse_config(write_json_files(tmp_path_factory.mktemp("sizes"), SHAPE))


@pytest.mark.parametrize(
    ("split", "quantization", "dtype"),
    [
        ((1, 1, 1), "none", torch.bfloat16),
        ((3, 3, 1), "none", torch.float32),
        ((1, 1, 3), "none", torch.bfloat16),
        ((1, 1, 1), "int8", torch.bfloat16),
        ((2, 1, 1), "int8", torch.float32),
        ((1, 1, 1), "fp8", torch.bfloat16),
        ((2, 2, 2), "int4", torch.bfloat16),
        ((1, 1, 1), "int4", torch.float32),
    ],
)
def test_weights_and_cache(
    spec: ModelSpec, split: tuple[int, int, int], quantization: Quantization, dtype: torch.dtype
) -> None:
    size, vision_tp, stages = split
    plan = ShardPlan.make(spec, size, vision_tp, stages=stages)
    planned = plan_memory(spec, plan, bytes_per_value=dtype.itemsize, quantization=quantization)
    for memory, shard in zip(planned, plan.ranks, strict=True):
        model = dummy_model(spec, dtype, CPU, shard=shard, pack=packing(quantization, CPU))
        assert held_bytes(model) == pytest.approx(memory.weights, rel=0.05)
        cache = KVCache.allocate(
            num_layers=len(shard.text.layers),
            num_blocks=10,
            block_size=16,
            num_kv_heads=len(shard.text.kv_heads),
            head_dim=spec.text.head_dim,
            dtype=dtype,
            device=CPU,
        )
        assert cache.keys.nbytes + cache.values.nbytes == 160 * memory.kv_token


def test_only_the_first_stage_has_room_for_pictures(spec: ModelSpec) -> None:
    behind, first = plan_memory(spec, ShardPlan.make(spec, 1, stages=2), bytes_per_value=2)
    kept = 2 * IMAGE_SLOTS * spec.tokens_per_image * spec.text.hidden_size
    assert first.activations - behind.activations >= kept


def test_packing_takes_no_more() -> None:
    weight = torch.randn(512, 1408)
    assert OneDnnMatrix(weight, SOLO).size_bytes == pytest.approx(weight.nbytes, rel=0.05)
