from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from server.engine.plan import NOTHING
from server.messages import SamplingParams
from server.runner.sampler import sample
from server.runner.shaping import SamplingRow, TokenRules, apply_mask, shape_logits

LOGITS = torch.tensor([2.0, 1.9, 1.8, -1.0, -1.05])


def shaped(
    generated: list[int], *, stop_ids: tuple[int, ...] = (), logits: Tensor = LOGITS, **params: Any
) -> Tensor:
    sampling = SamplingParams(temperature=0.0, **params)
    row = SamplingRow(
        sampling,
        position=9,
        generated=torch.tensor(generated, dtype=torch.int64),
        rules=TokenRules.of(sampling, stop_ids, len(logits), logits.device),
    )
    assert row.params.shaped
    changed = logits.clone()
    shape_logits(changed, row)
    return changed


def banned(logits: Tensor) -> list[int]:
    return torch.isinf(logits).nonzero()[:, 0].tolist()


def test_presence_counts_once_and_frequency_each_time() -> None:
    once, each_time = torch.tensor([1.5, 1.4, 1.8]), torch.tensor([1.0, 1.4, 1.8])
    assert torch.allclose(shaped([0, 0, 1], presence_penalty=0.5)[:3], once)
    assert torch.allclose(shaped([0, 0, 1], frequency_penalty=0.5)[:3], each_time)


def test_the_repetition_penalty_lowers_either_sign() -> None:
    changed = shaped([0, 3], repetition_penalty=2.0)
    assert changed.tolist() == [1.0, LOGITS[1], LOGITS[2], -2.0, LOGITS[4]]


def test_a_negative_penalty_invites_repetition() -> None:
    assert shaped([1], presence_penalty=-0.5).argmax() == 1


def test_biases_are_added() -> None:
    changed = shaped([], logit_bias={4: 5.0, 0: -100.0})
    assert changed.argmax() == 4
    assert changed[1] == LOGITS[1]


def test_only_allowed_tokens_are_left() -> None:
    assert banned(shaped([], allowed_token_ids=[3, 1])) == [0, 2, 4]


def test_stop_tokens_wait_for_min_tokens() -> None:
    assert banned(shaped([1, 1], min_tokens=3, stop_ids=(0, 4))) == [0, 4]
    assert banned(shaped([1, 1, 1], min_tokens=3, stop_ids=(0, 4))) == []


def test_the_end_of_a_bad_word_is_banned_after_its_beginning() -> None:
    words = [[2], [1, 0], [3, 3, 4]]
    assert banned(shaped([], bad_words=words)) == [2]
    assert banned(shaped([1], bad_words=words)) == [0, 2]
    assert banned(shaped([0, 3, 3], bad_words=words)) == [2, 4]
    assert banned(shaped([3, 0], bad_words=words)) == [2]


def test_a_mask_is_bits_from_the_lowest_on() -> None:
    logits = torch.zeros(11)
    apply_mask(logits, (0b101_0000_0010).to_bytes(4, "little"))
    assert banned(logits) == [0, 2, 3, 4, 5, 6, 7, 9]


def test_masks_meet_their_rows() -> None:
    greedy = SamplingRow(SamplingParams(temperature=0.0), 0)
    drawn = sample(LOGITS.repeat(3, 1), [greedy] * 3, [b"\x1c", None, b"\x08"])
    assert drawn.tolist() == [2, 0, 3]


def test_a_random_row_never_draws_what_is_banned() -> None:
    sampling = SamplingParams(seed=1, temperature=2.0, top_p=0.9, allowed_token_ids=[1, 3])
    rules = TokenRules.of(sampling, (), len(LOGITS), LOGITS.device)
    generated = torch.tensor([], dtype=torch.int64)
    rows = [SamplingRow(sampling, position, generated, rules) for position in range(500)]
    assert set(sample(LOGITS.repeat(500, 1), rows).tolist()) <= {1, 3}


@pytest.mark.parametrize("others", [{"temperature": 0.0}, {}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_where_nothing_is_left_nothing_is_drawn(others: dict[str, float]) -> None:
    generated = torch.tensor([], dtype=torch.int64)
    rows = []
    for words in ([[3]], [[2]]):
        params = SamplingParams(allowed_token_ids=[3], bad_words=words, **others)  # type: ignore[arg-type]
        rules = TokenRules.of(params, (), len(LOGITS), LOGITS.device)
        rows.append(SamplingRow(params, 9, generated, rules))
    rows.append(SamplingRow(SamplingParams(**others), 9))  # type: ignore[arg-type]
    logits = LOGITS.repeat(3, 1)
    logits[2, :4] -= 1000.0
    assert sample(logits, rows, [None, None, b"\x1f"]).tolist() == [NOTHING, 3, 4]
