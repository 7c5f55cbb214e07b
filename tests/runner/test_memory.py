from __future__ import annotations

import re

import pytest

from server.engine.plan import RunnerLimits
from server.errors import StartupError
from server.kernels.sdpa import BLOCK_SIZE
from server.model.footprint import plan_memory
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.runner.memory import GIB, plan_limits
from server.settings import Settings
from tests import golden

SPEC = ModelSpec.load(golden.CHECKPOINT)
(MEMORY,) = plan_memory(SPEC, ShardPlan.make(SPEC, 1), bytes_per_value=4)
TOKEN_BYTES = MEMORY.kv_token
BLOCK_BYTES = BLOCK_SIZE * TOKEN_BYTES


def plan(settings: Settings, *, free_bytes: int = 8 * GIB, on_cpu: bool = True) -> RunnerLimits:
    return plan_limits(
        settings,
        SPEC,
        block_size=BLOCK_SIZE,
        token_bytes=TOKEN_BYTES,
        free_bytes=free_bytes,
        on_cpu=on_cpu,
    )


def test_a_token_takes_keys_and_values_of_all_layers() -> None:
    text = SPEC.text
    token = 2 * text.num_layers * text.num_kv_heads * text.head_dim * 4
    assert token == TOKEN_BYTES


def test_a_cpu_takes_a_context_for_everybody_but_not_all_memory() -> None:
    assert plan(Settings(max_num_seqs=3)).kv_blocks == 3 * 4096 // BLOCK_SIZE
    small = plan(Settings(max_num_seqs=32), free_bytes=4000 * BLOCK_BYTES)
    assert small.kv_blocks == 1000


def test_a_gpu_takes_most_of_what_is_free() -> None:
    assert plan(Settings(), free_bytes=1000 * BLOCK_BYTES, on_cpu=False).kv_blocks == 900


def test_what_the_operator_says_counts() -> None:
    assert plan(Settings(kv_cache_blocks=77)).kv_blocks == 77
    assert plan(Settings(kv_cache_gib=0.25)).kv_blocks == GIB // 4 // BLOCK_BYTES


def test_the_context_is_cut_to_what_the_cache_holds() -> None:
    assert plan(Settings()).max_model_len == 4096
    assert plan(Settings(max_model_len=1000)).max_model_len == 1000
    assert plan(Settings(kv_cache_blocks=8)).max_model_len == 8 * BLOCK_SIZE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(max_model_len=5000), "--max-model-len 5000 is more than the 4096 tokens"),
        (Settings(max_model_len=200, kv_cache_blocks=8), "holds 128 tokens, --max-model-len asks"),
        (Settings(kv_cache_gib=9), "8.0 GiB are free: lower --kv-cache-blocks or --kv-cache-gib"),
        (Settings(kv_cache_gib=1e-9), "a KV cache of 0 blocks"),
    ],
)
def test_what_does_not_fit_is_explained(settings: Settings, message: str) -> None:
    with pytest.raises(StartupError, match=re.escape(message)):
        plan(settings)


def test_limits_come_from_the_checkpoint() -> None:
    limits = plan(Settings(step_token_budget=123))
    assert limits.image_bytes == 56 * 56 * 3
    assert limits.tokens_per_image == 4
    assert limits.vocab_size == 1024
    assert limits.step_token_budget == 123
