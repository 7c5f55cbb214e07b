from __future__ import annotations

import pytest
import torch
from torch import Tensor

from server.messages import SamplingParams
from server.runner.sampler import _restrict, sample
from server.runner.shaping import SamplingRow


def draw(logits: Tensor, draws: int, **params: float) -> Tensor:
    """Tokens that many positions of one request draw from the same logits."""
    sampling = SamplingParams(seed=11, **params)  # type: ignore[arg-type]
    rows = [SamplingRow(sampling, position, None) for position in range(draws)]
    return sample(logits.repeat(draws, 1), rows)


def test_temperature_zero_is_greedy_whatever_else_is_set() -> None:
    logits = torch.tensor([0.0, 3.0, 2.9])
    assert set(draw(logits, 50, temperature=0.0, top_k=3, top_p=0.9).tolist()) == {1}
    assert set(draw(logits, 50, temperature=1e-30).tolist()) == {1}


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        drawn = draw(logits, 40_000, temperature=temperature)
        share = drawn.bincount(minlength=4) / len(drawn)
        assert torch.allclose(share, (logits / temperature).softmax(0), atol=0.01)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.0}, {0}),
        ({"top_k": 3, "top_p": 0.9}, {0, 1, 2}),
        ({"top_k": 2, "top_p": 0.6}, {0}),  # of the two that are left the first has 0.625
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_filters_keep_the_likeliest(params: dict[str, float], expected: set[int]) -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert set(draw(logits, 2000, **params).tolist()) == expected


def test_the_order_of_sums_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU adds a single row up in another order each time."""
    logits = torch.randn(1, 64_000, generator=torch.Generator().manual_seed(3))
    logits[0, 77] = 18.0  # beside it each of the others is less than a rounding
    params = [SamplingParams(top_p=1 - share * 1e-4) for share in range(1, 16)]
    together = _restrict(logits.repeat(len(params), 1), params)
    cumsum = torch.Tensor.cumsum

    def in_parts(values: Tensor, dim: int) -> Tensor:
        parts = cumsum(torch.unflatten(values, dim, (-1, 640)), dim)
        before = cumsum(parts[..., -1:], -2) - parts[..., -1:]
        return (parts + before).flatten(-2)

    monkeypatch.setattr(torch.Tensor, "cumsum", in_parts)
    for row, one in zip(together, params, strict=True):
        assert torch.equal(_restrict(logits, [one])[0], row)


def test_half_of_the_mass_is_half_of_the_tokens() -> None:
    params = [SamplingParams(top_p=share) for share in (0.1, 0.25, 0.5, 0.9)]
    kept = _restrict(torch.full((4, 64_000), 7.0), params) > -torch.inf
    assert kept.sum(dim=-1).tolist() == [6_400, 16_000, 32_000, 57_600]


def test_what_is_left_keeps_its_proportions() -> None:
    logits = torch.tensor([0.05, 0.5, 0.15, 0.3]).log()
    drawn = draw(logits, 40_000, top_k=2)
    share = drawn.bincount(minlength=4) / len(drawn)
    assert torch.allclose(share, torch.tensor([0.0, 0.625, 0.0, 0.375]), atol=0.01)


def test_rows_do_not_disturb_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 300, generator=generator)
    params = [
        SamplingParams(temperature=0.0),
        SamplingParams(seed=5),
        SamplingParams(seed=5, top_p=0.8),
        SamplingParams(seed=6, top_k=5, temperature=0.7),
        SamplingParams(temperature=0.0, frequency_penalty=2.0),
        SamplingParams(seed=7, min_p=0.1, repetition_penalty=1.3),
    ]
    generated = torch.tensor([1, 2, 2, 3])
    rows = [
        SamplingRow(p, 40 + i, generated if p.penalised else None) for i, p in enumerate(params)
    ]
    together = sample(logits.clone(), rows)
    for index, row in enumerate(rows):
        assert sample(logits[index : index + 1].clone(), [row]) == together[index]
