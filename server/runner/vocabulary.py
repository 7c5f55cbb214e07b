"""Sampling when each rank holds a part of the vocabulary: every rank draws the same token.

Rows that want nothing special compare one number and one id per rank. The others are drawn from the
whole row of logits, which ranks bring together for them alone; the noise belongs to token ids, so
both ways draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from server.distributed.groups import Group
from server.runner.sampler import is_random, perturbed, sample
from server.runner.shaping import SamplingRow


class Vocabulary:
    """The parts of a vocabulary.

    Args:
        sizes: how many tokens each rank holds, in the order of the ranks.
    """

    def __init__(self, sizes: Sequence[int], group: Group) -> None:
        self._sizes = sizes
        self._first_id = sum(sizes[: group.rank])
        self._group = group

    def whole(self, logits: Tensor) -> Tensor:
        """This rank's logits [rows, own part] to those of all, [rows, vocabulary]."""
        if self._group.size == 1:
            return logits
        padded = pad(logits, (0, max(self._sizes) - logits.shape[1]))
        parts = self._group.gather(padded)
        return torch.cat(
            [part[:, :size] for part, size in zip(parts, self._sizes, strict=True)], dim=1
        )

    def sample(
        self, logits: Tensor, rows: Sequence[SamplingRow], masks: Sequence[bytes | None]
    ) -> Tensor:
        """As `sampler.sample`, from this rank's logits."""
        if self._group.size == 1:
            return sample(logits, rows, masks)
        token_ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
        plain: list[int] = []
        special: list[int] = []
        for i, row in enumerate(rows):
            masked = bool(masks) and masks[i] is not None
            wants_more = row.params.filtered or row.params.shaped or masked
            (special if wants_more else plain).append(i)
        if plain:
            token_ids[plain] = self._compare(logits[plain], [rows[i] for i in plain])
        if special:
            token_ids[special] = sample(
                self.whole(logits[special]),
                [rows[i] for i in special],
                [masks[i] for i in special] if masks else (),
            )
        return token_ids

    def _compare(self, logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
        """Each rank's best, then the best of those; the lowest id where they are equal."""
        random = [i for i, row in enumerate(rows) if is_random(row)]
        if random:
            logits[random] = perturbed(logits[random], [rows[i] for i in random], self._first_id)
        value, index = logits.max(dim=-1)
        # Ids are exact in float32 as far as 2^24.
        brought = self._group.gather(torch.stack([value, (index + self._first_id).float()]))
        values, ids = torch.stack(brought, dim=1)
        best = values.max(dim=0).values
        lowest: Tensor = ids.masked_fill(values < best, torch.inf).min(dim=0).values
        return lowest.long()
