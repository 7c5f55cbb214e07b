from __future__ import annotations

import pytest
import torch
from torch import Tensor

from server.messages import SamplingParams
from server.runner.sampler import sample
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
