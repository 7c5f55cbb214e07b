from __future__ import annotations

import math

import torch

from server.runner.noise import gumbel_noise, noise_key

IDS = torch.arange(5000, dtype=torch.int32)


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    keys = [noise_key(seed, position) for seed in (1, 2) for position in (0, 1)]
    together = gumbel_noise(keys, IDS)
    for row, key in zip(together, keys, strict=True):
        assert torch.equal(gumbel_noise([key], IDS)[0], row)
    assert torch.equal(gumbel_noise(keys, IDS[3000:]), together[:, 3000:])
    assert len({tuple(row[:8].tolist()) for row in together}) == len(keys)


def test_noise_is_what_the_definition_says() -> None:
    """In plain integers: a seed promises the same answer on any device and after an upgrade."""

    def lowbias32(x: int) -> int:
        x ^= x >> 16
        x = x * 0x21F0AAAD % 2**32
        x ^= x >> 15
        x = x * 0xD35A2D97 % 2**32
        return x ^ (x >> 15)

    first, second = (key % 2**32 for key in noise_key(42, 7))
    assert (first, second) == (0x1339E500, 0x16062D6C)
    noise = gumbel_noise([noise_key(42, 7)], IDS[:100])[0]
    for token_id, value in enumerate(noise.tolist()):
        bits = lowbias32(lowbias32(token_id ^ first) ^ second)
        uniform = ((bits >> 9) + 0.5) / 2**23
        assert abs(value + math.log(-math.log(uniform))) < 1e-4 * max(1, abs(value))


def test_noise_is_gumbel() -> None:
    keys = [noise_key(3, position) for position in range(200)]
    noise = gumbel_noise(keys, IDS).double()
    assert abs(noise.mean() - 0.57722) < 0.005
    assert abs(noise.var() - torch.pi**2 / 6) < 0.01
    levels = torch.tensor([-1.0, 0.0, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    for level in levels:
        share = (noise <= level).double().mean()
        assert abs(share - (-(-level).exp()).exp()) < 0.002


def test_noise_is_finite_at_both_ends() -> None:
    """These draw the largest of all hashes, which float32 once rounded up to a uniform 1: infinite
    noise, and whatever token it fell on won."""
    assert gumbel_noise([noise_key(399, 64)], torch.tensor([778], dtype=torch.int32)).isfinite()
    keys = [noise_key(seed, 0) for seed in range(200)]
    ids = torch.arange(64007, dtype=torch.int32)
    for start in range(0, len(keys), 50):
        assert gumbel_noise(keys[start : start + 50], ids).isfinite().all()


def test_neighbours_are_independent() -> None:
    """Of positions, of seeds and of tokens."""
    by_position = gumbel_noise([noise_key(3, p) for p in range(300)], IDS[:2000])
    by_seed = gumbel_noise([noise_key(s, 3) for s in range(300)], IDS[:2000])
    for noise in (by_position, by_seed):
        flat = noise - noise.mean()
        power = flat.square().mean()
        assert abs((flat[1:] * flat[:-1]).mean() / power) < 0.005
        assert abs((flat[:, 1:] * flat[:, :-1]).mean() / power) < 0.005


def test_seeds_of_64_bits_all_count() -> None:
    keys = {noise_key(seed, 0) for seed in (0, 1, 2**32, 2**62, -1, 2**63 - 1)}
    assert len(keys) == 6
