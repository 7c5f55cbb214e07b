"""How many ranks share a vision tower where nobody says: by the link between them and by memory.

A tower over all ranks takes the least memory and encodes one picture soonest. But in each layer its
ranks add up two products, of a picture of the 40B 1.2 GB in all, and over a slow link that takes
longer than the tower itself. Several smaller towers, which encode different pictures, avoid that;
what they take is missing in the KV cache. Pure arithmetic; imports no torch.
"""

from __future__ import annotations

from server.model.footprint import plan_memory
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.settings import Quantization

KV_SHARE = 0.75
"""Of the largest possible KV cache that smaller towers must leave."""


def choose_vision_tp(
    spec: ModelSpec,
    size: int,
    *,
    stages: int,
    slow_link: bool,
    memory_bytes: int,
    bytes_per_value: int,
    quantization: Quantization,
) -> int:
    """
    Args:
        size: ranks of a stage.
        slow_link: whether the ranks of a stage are not joined by something like NVLink.
        memory_bytes: what a rank may use.
    """
    if not slow_link:
        return size

    def kv_tokens(vision_tp: int) -> int:
        plan = ShardPlan.make(spec, size, vision_tp, stages=stages)
        ranks = plan_memory(spec, plan, bytes_per_value=bytes_per_value, quantization=quantization)
        return min((memory_bytes - r.weights - r.activations) // r.kv_token for r in ranks)

    least = KV_SHARE * max(0, kv_tokens(size))
    divisors = (tp for tp in range(1, size) if size % tp == 0)
    return next((tp for tp in divisors if least and kv_tokens(tp) >= least), size)
