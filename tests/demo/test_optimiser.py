from __future__ import annotations

import torch

from server.demo.optimiser import Optimiser, orthogonal


def test_directions_are_about_orthogonal() -> None:
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    for batch in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(batch))
        assert values.shape == (3, 20)
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_it_finds_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = {"a.weight": torch.randn(8, 6, generator=generator) / 3, "a.bias": torch.ones(8) / 3}
    weights = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    gradients = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    optimiser = Optimiser(weights, gradients)
    steps = 400
    for number in range(1, steps + 1):
        for name, gradient in gradients.items():
            gradient.copy_(weights[name] - wanted[name])
        optimiser.step(number, rate=1 - number / (steps + 1))
    for name, tensor in wanted.items():
        assert (weights[name] - tensor).abs().max() < 0.05, name


def test_joined_matrices_are_stepped_apart() -> None:
    weights = {"layers.0.attn.qkv.weight": torch.zeros(12, 4)}
    gradients = {"layers.0.attn.qkv.weight": torch.zeros(12, 4)}
    gradients["layers.0.attn.qkv.weight"][:4] = torch.eye(4)
    Optimiser(weights, gradients).step(1, rate=1.0)
    query, key, value = weights["layers.0.attn.qkv.weight"].chunk(3)
    assert query.diagonal().max() < 0
    assert not key.any()
    assert not value.any()


def test_weights_that_rest_do_not_follow_their_momentum() -> None:
    names = ["a.weight", "b.weight", "a.bias"]
    weights = {name: torch.zeros(4, 4) for name in names}
    gradients = {name: torch.eye(4) for name in names}
    optimiser = Optimiser(weights, gradients)
    optimiser.step(1, rate=1.0)
    before = {name: weight.clone() for name, weight in weights.items()}
    optimiser.step(2, 1.0, resting=("a.",))
    moved = {name for name in names if not torch.equal(weights[name], before[name])}
    assert moved == {"b.weight"}
