"""What a request does to the logits before a token is drawn: penalties, biases, bans and masks.

Rows that ask for nothing are not touched. Everything stays on the device, so a ban that depends on
the last tokens needs no look at their values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from server.messages import SamplingParams


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """A row that samples."""

    params: SamplingParams
    position: int
    """Of the new token."""
    generated: Tensor | None = None
    """What the request has generated so far; only needed where `params.shaped`."""
    stop_ids: tuple[int, ...] = ()
    """What must not be drawn before `params.min_tokens`."""


def shape_logits(logits: Tensor, row: SamplingRow) -> None:
    """Changes the logits [vocabulary] of a row in place, as its `params.shaped` demands."""
    params, generated = row.params, row.generated
    assert generated is not None
    if params.penalised:
        _penalise(logits, params, generated)
    if params.logit_bias:
        token_ids = torch.tensor(list(params.logit_bias), device=logits.device)
        logits[token_ids] += logits.new_tensor(list(params.logit_bias.values()))
    if len(generated) < params.min_tokens and row.stop_ids:
        logits[torch.tensor(row.stop_ids, device=logits.device)] = -torch.inf
    if params.allowed_token_ids is not None:
        forbidden = torch.ones_like(logits, dtype=torch.bool)
        forbidden[torch.tensor(params.allowed_token_ids, device=logits.device)] = False
        logits.masked_fill_(forbidden, -torch.inf)
    for word in params.bad_words:
        _ban(logits, word, generated)


def _penalise(logits: Tensor, params: SamplingParams, generated: Tensor) -> None:
    """OpenAI's presence and frequency penalties, then the repetition penalty of transformers."""
    counts = generated.bincount(minlength=len(logits))
    seen = counts > 0
    logits -= params.presence_penalty * seen + params.frequency_penalty * counts
    factor = params.repetition_penalty
    logits.copy_(
        torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)
    )


def _ban(logits: Tensor, word: list[int], generated: Tensor) -> None:
    """Rules the last token of `word` out where the others were generated just now."""
    *before, last = word
    if len(before) > len(generated):
        return
    tail = generated[len(generated) - len(before) :]
    completes = (tail == torch.tensor(before, dtype=tail.dtype, device=tail.device)).all()
    logits[last] = torch.where(completes, -torch.inf, logits[last])


def apply_mask(logits: Tensor, mask: bytes) -> None:
    """Rules out, in place, the tokens of `logits` [vocabulary] whose bit in `mask` is 0; bit i of
    the little-endian bits is token i."""
    packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8).to(logits.device)
    bits = (packed[:, None] >> torch.arange(8, device=logits.device)) & 1
    logits.masked_fill_(bits.flatten()[: len(logits)] == 0, -torch.inf)
