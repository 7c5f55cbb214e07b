"""What both attention kernels do with a tile of keys: the running softmax.

Scores are in powers of two, because that is the exponential that the hardware has. A masked key
adds an exact zero and never changes the maximum, so a query's numbers do not depend on which other
queries stand in its tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = 1.4426950408889634

KEYS_PER_TILE = 64
"""Keys of a tile at most; a tile never crosses a block of the cache."""

SMALLEST_TILE = 16
"""The matrix units multiply no smaller tiles."""


def tile_keys(block_size: int) -> int:
    """Keys of a tile in a cache with blocks of `block_size` tokens."""
    assert block_size >= SMALLEST_TILE and block_size.bit_count() == 1
    return min(KEYS_PER_TILE, block_size)


@triton.jit
def first_key(table, start, head, stride, SIZE: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Where in a layer of the cache the key of position `start` is."""
    block = tl.load(table + start // SIZE).to(tl.int64)
    return (block * SIZE + start % SIZE) * stride + head * HEAD_DIM


@triton.jit
def key_offsets(stride, KEYS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Offsets [KEYS, HEAD_DIM] from the first key of a tile: small numbers, equal for all tiles."""
    return tl.arange(0, KEYS)[:, None] * stride + tl.arange(0, HEAD_DIM)[None, :]


@triton.jit
def attend_tile(q, k, v, seen, scale, best, total, out):
    """Takes keys `k` and values `v` [KEYS, HEAD_DIM] into the running maximum `best`, the sum of
    weights `total` (both [QUERIES]) and the weighted sum `out` [QUERIES, HEAD_DIM]."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    larger = tl.maximum(best, tl.max(scores, 1))
    shrink = tl.exp2(best - larger)
    weights = tl.exp2(scores - larger[:, None])
    total = total * shrink + tl.sum(weights, 1)
    out = out * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return larger, total, out
