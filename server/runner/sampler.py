"""From logits to one token id for each row.

Greedy rows take the largest logit. Random rows add Gumbel noise and take the largest sum, which
draws from the softmax without a sort or a read-back. Only rows that ask for top_k, top_p or min_p
are sorted, and only rows that ask for it are shaped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from server.engine.plan import NOTHING
from server.messages import SamplingParams
from server.runner.noise import gumbel_noise, noise_key
from server.runner.shaping import SamplingRow, apply_mask, shape_logits

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow."""

WEIGHT = 1 << 40
"""Of the likeliest token, where likelihoods are added up: as integers, because a GPU adds in any
order, and a row must keep the same tokens on all ranks, alone and in a batch."""


def sample(
    logits: Tensor, rows: Sequence[SamplingRow], masks: Sequence[bytes | None] = ()
) -> Tensor:
    """Draws a token for each row.

    Args:
        logits: float32 [rows, vocabulary]; may be changed.
        masks: which tokens each row may draw, where there are any; see `engine.plan.Pending`.

    Returns:
        int64 [rows]; `NOTHING` where no token is left.
    """
    bent = False
    for index, row in enumerate(rows):
        if row.params.shaped:
            shape_logits(logits[index], row)
            bent = True
        if masks and (mask := masks[index]) is not None:
            apply_mask(logits[index], mask)
            bent = True
    token_ids = logits.argmax(dim=-1)
    random = [i for i, row in enumerate(rows) if is_random(row)]
    if random:
        drawing = [rows[i] for i in random]
        token_ids[random] = perturbed(logits[random], drawing, first_id=0).argmax(dim=-1)
    if bent:
        # A token that is ruled out is the likeliest only where all are.
        drawn = logits.gather(1, token_ids[:, None])[:, 0]
        token_ids = token_ids.masked_fill(drawn == -torch.inf, NOTHING)
    return token_ids


def is_random(row: SamplingRow) -> bool:
    return row.params.temperature >= GREEDY_BELOW


def perturbed(logits: Tensor, rows: Sequence[SamplingRow], first_id: int) -> Tensor:
    """Logits of random rows with temperature, filters and noise applied: the largest is drawn.

    Args:
        first_id: token id of the first column. Filters need the whole vocabulary.
    """
    params = [row.params for row in rows]
    logits = logits / logits.new_tensor([p.temperature for p in params])[:, None]
    filtered = [i for i, p in enumerate(params) if p.filtered]
    if filtered:
        logits[filtered] = _restrict(logits[filtered], [params[i] for i in filtered])
    keys = [noise_key(row.params.seed, row.position) for row in rows]
    last_id = first_id + logits.shape[1]
    token_ids = torch.arange(first_id, last_id, dtype=torch.int32, device=logits.device)
    return logits + gumbel_noise(keys, token_ids)


def _restrict(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Rules out tokens: all but the `top_k` likeliest; of those all that come after a mass of
    `top_p`; and all less likely than `min_p` times the likeliest, which itself always stays."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[1], device=logits.device)
    top_k = torch.tensor([p.top_k or logits.shape[1] for p in params], device=logits.device)
    ordered = ordered.masked_fill(rank >= top_k[:, None], -torch.inf)
    likelihood = (ordered - ordered[:, :1]).exp()
    weight = (likelihood * WEIGHT).long()
    mass = weight.cumsum(dim=-1)
    top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64, device=logits.device)
    out = mass - weight >= (mass[:, -1:] * top_p[:, None]).long()
    out |= likelihood < logits.new_tensor([p.min_p for p in params])[:, None]
    out[:, 0] = False
    ordered = ordered.masked_fill(out, -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ordered)
