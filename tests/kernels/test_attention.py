from __future__ import annotations

import torch

from server.kernels.attention import KVCache


def test_a_layer_of_the_cache_is_a_view_by_position() -> None:
    cache = KVCache.allocate(
        num_layers=2,
        num_blocks=3,
        block_size=4,
        num_kv_heads=5,
        head_dim=6,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    keys, values = cache.layer(1)
    assert keys.shape == values.shape == (3 * 4, 5, 6)
    assert keys.dtype == torch.bfloat16
    keys[2 * 4 + 3] = 1
    values[2 * 4 + 3] = 2
    assert cache.block_size == 4
    assert bool((cache.keys[1, 2, 3] == 1).all())
    assert bool((cache.values[1, 2, 3] == 2).all())
    assert cache.keys.sum() == 5 * 6
    assert cache.values.sum() == 2 * 5 * 6
