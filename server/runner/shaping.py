"""What a request does to the logits before a token is drawn: penalties, biases, bans and masks.

Rows that ask for nothing are not touched. Everything stays on the device, so a ban that depends on
the last tokens needs no look at their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.messages import SamplingParams


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a request says about single tokens, on its device: made once for all of its steps, since
    lists can be long."""

    bias_ids: Tensor
    biases: Tensor
    """float32, one for each of `bias_ids`."""
    stop_ids: Tensor
    """What must not be drawn before `min_tokens`."""
    min_tokens: int
    forbidden: Tensor | None
    """bool [vocabulary]: what is never drawn, because it is banned or not among the allowed."""
    bad_words: list[tuple[Tensor, int]]
    """Of those of several tokens, all but the last, and the last."""

    @classmethod
    def of(
        cls,
        params: SamplingParams,
        stop_ids: Sequence[int],
        vocab_size: int,
        device: torch.device,
    ) -> TokenRules | None:
        """None where a request says nothing of the kind."""
        allowed = params.allowed_token_ids
        held_back = stop_ids if params.min_tokens else ()
        if not (params.logit_bias or params.bad_words or held_back or allowed is not None):
            return None

        def ids(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        banned = [word[0] for word in params.bad_words if len(word) == 1]
        forbidden = None
        if banned or allowed is not None:
            forbidden = torch.full((vocab_size,), allowed is not None, device=device)
            forbidden[ids(allowed or ())] = False
            forbidden[ids(banned)] = True
        return cls(
            bias_ids=ids(list(params.logit_bias)),
            biases=torch.tensor(
                list(params.logit_bias.values()), dtype=torch.float32, device=device
            ),
            stop_ids=ids(held_back),
            min_tokens=params.min_tokens,
            forbidden=forbidden,
            bad_words=[(ids(word[:-1]), word[-1]) for word in params.bad_words if len(word) > 1],
        )

    def apply(self, logits: Tensor, generated: Tensor) -> None:
        """Changes the logits [vocabulary] in place, behind the tokens `generated`."""
        if len(self.bias_ids):
            logits[self.bias_ids] += self.biases
        if len(generated) < self.min_tokens and len(self.stop_ids):
            logits[self.stop_ids] = -torch.inf
        if self.forbidden is not None:
            logits.masked_fill_(self.forbidden, -torch.inf)
        for before, last in self.bad_words:
            _ban(logits, before, last, generated)


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """A row that samples."""

    params: SamplingParams
    position: int
    """Of the new token."""
    generated: Tensor | None = None
    """What the request has generated so far; only needed where `params.shaped`."""
    rules: TokenRules | None = None
    """What `params` says about single tokens."""


def shape_logits(logits: Tensor, row: SamplingRow) -> None:
    """Changes the logits [vocabulary] of a row in place, as its `params.shaped` demands."""
    params, generated = row.params, row.generated
    assert generated is not None
    if params.penalised:
        _penalise(logits, params, generated)
    if row.rules is not None:
        row.rules.apply(logits, generated)


def _penalise(logits: Tensor, params: SamplingParams, generated: Tensor) -> None:
    """OpenAI's presence and frequency penalties, then the repetition penalty of transformers."""
    counts = generated.bincount(minlength=len(logits))
    seen = counts > 0
    logits -= params.presence_penalty * seen + params.frequency_penalty * counts
    factor = params.repetition_penalty
    logits.copy_(
        torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)
    )


def _ban(logits: Tensor, before: Tensor, last: int, generated: Tensor) -> None:
    """Rules the last token of a word out where those before it were generated just now."""
    if len(before) > len(generated):
        return
    completes = (generated[len(generated) - len(before) :] == before).all()
    logits[last] = torch.where(completes, -torch.inf, logits[last])


def apply_mask(logits: Tensor, mask: bytes) -> None:
    """Rules out, in place, the tokens of `logits` [vocabulary] whose bit in `mask` is 0; bit i of
    the little-endian bits is token i."""
    packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8).to(logits.device)
    bits = (packed[:, None] >> torch.arange(8, device=logits.device)) & 1
    logits.masked_fill_(bits.flatten()[: len(logits)] == 0, -torch.inf)
