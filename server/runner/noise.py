"""Counter-based Gumbel noise: a pure function of seed, position and token id.

The same request draws the same noise alone or in a batch, before and after a preemption, and on a
rank that holds any part of the vocabulary. The hash is two rounds of lowbias32, keyed by 64 bits
that splitmix64 makes of seed and position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK64 = 2**64 - 1


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _signed32(value: int) -> int:
    value &= 2**32 - 1
    return value - 2**32 if value >= 2**31 else value


def noise_key(seed: int, position: int) -> tuple[int, int]:
    """Two signed 32-bit keys for the token at `position` of a request with `seed`."""
    key = _splitmix64(_splitmix64(seed & _MASK64) ^ position)
    return _signed32(key), _signed32(key >> 32)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical, where torch's own shift of a signed integer copies the sign."""
    return torch.bitwise_and(x >> bits, 2 ** (32 - bits) - 1)


def _lowbias32(x: Tensor) -> Tensor:
    x ^= _shift_right(x, 16)
    x *= _signed32(0x21F0AAAD)
    x ^= _shift_right(x, 15)
    x *= _signed32(0xD35A2D97)
    x ^= _shift_right(x, 15)
    return x


def gumbel_noise(keys: Sequence[tuple[int, int]], token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, float32 [len(keys), len(token_ids)].

    Args:
        keys: one `noise_key` for each row.
        token_ids: [V] int32; a rank passes the ids of its shard.
    """
    first, second = torch.tensor(keys, dtype=torch.int32, device=token_ids.device).unbind(1)
    bits = _lowbias32(token_ids ^ first[:, None])
    bits = _lowbias32(bits ^ second[:, None])
    # 23 bits and a half are exact in float32: never 0 and never 1, so both logarithms are finite.
    uniform = (_shift_right(bits, 9).float() + 0.5) * 2.0**-23
    return -uniform.log_().neg_().log_()
