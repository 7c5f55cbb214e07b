"""What the model itself thought of a token: log probabilities before anything bends the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from server.messages import TokenLogprob


@dataclass(frozen=True, slots=True)
class Logprobs:
    """For n tokens, on the device or on the host."""

    chosen: Tensor
    """[n] float32."""
    top_ids: Tensor
    """[n, k], likeliest first."""
    top: Tensor
    """[n, k] float32."""

    @classmethod
    def of(cls, logits: Tensor, token_ids: Tensor, k: int) -> Logprobs:
        """Of `token_ids` [n] under `logits` [n, vocabulary], with the `k` likeliest beside them."""
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        chosen = logits.gather(1, token_ids[:, None]) - normaliser
        top, top_ids = logits.topk(k, dim=-1)
        return cls(chosen[:, 0], top_ids, top - normaliser)

    def listed(self, counts: Sequence[int]) -> list[TokenLogprob]:
        """As messages, with the `counts[i]` likeliest for token i; the values must have arrived."""
        rows = zip(
            self.chosen.tolist(), self.top_ids.tolist(), self.top.tolist(), counts, strict=True
        )
        return [TokenLogprob(own, ids[:count], top[:count]) for own, ids, top, count in rows]
