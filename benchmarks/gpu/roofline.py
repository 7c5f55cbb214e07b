"""What no implementation can beat: bytes over bandwidth, operations over the matrix rate.

Counts follow from the model's shape alone; what the device reaches is measured in the same run.
Every weight is read once a step, every key and value of a context once, and each row of tokens
costs two operations a weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.model.shards import ShardPlan, text_weights, vision_weights
from server.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reaches."""

    copy_bytes_per_s: float
    """Of a large copy, read and write counted."""
    read_bytes_per_s: float
    """Of what only reads: the faster of a large sum and that copy."""
    flops_per_s: float
    """Of a large matrix product on random numbers."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Floors of one device that holds the whole model; seconds.

    Args:
        weight_bytes: of a weight of the language model's layers.
        kv_bytes: of a value in the KV cache.
    """

    spec: ModelSpec
    ceilings: Ceilings
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0

    @property
    def head_weights(self) -> int:
        """Of the product that gives logits."""
        return self.spec.text.vocab_size * self.spec.text.hidden_size

    @property
    def layer_weights(self) -> int:
        """Of all layers of the language model."""
        shard = ShardPlan.make(self.spec, 1).ranks[0].text
        return text_weights(self.spec.text, shard) - 2 * self.head_weights

    @property
    def streamed_bytes(self) -> float:
        """Weights that a decode step reads: not the embeddings, of which it looks a few up."""
        return self.layer_weights * self.weight_bytes + 2 * self.head_weights

    @property
    def kv_token_bytes(self) -> float:
        text = self.spec.text
        return 2 * text.num_layers * text.num_kv_heads * text.head_dim * self.kv_bytes

    def decode_s(self, rows: int, context: int) -> float:
        """A step of one token a row, each with `context` tokens behind it."""
        return self.mixed_s(rows, context, 0)

    def prefill_s(self, tokens: int, past: int = 0) -> float:
        """One row of `tokens` behind `past` that are cached."""
        return self.mixed_s(0, 0, tokens, past)

    def mixed_s(self, rows: int, context: int, tokens: int, past: int = 0) -> float:
        """`rows` that decode beside a prefill of `tokens` in one step."""
        sampling = rows + (tokens > 0)
        products = 2 * ((rows + tokens) * self.layer_weights + sampling * self.head_weights)
        text = self.spec.text
        pairs = tokens * past + tokens * tokens / 2
        attention = 4 * text.num_layers * text.num_heads * text.head_dim * pairs
        read_s = self.streamed_bytes / self.ceilings.read_bytes_per_s
        compute_s = (products + attention) / self.ceilings.flops_per_s
        contexts_s = rows * context * self.kv_token_bytes / self.ceilings.read_bytes_per_s
        return max(read_s, compute_s) + contexts_s

    def vision_s(self, pictures: int) -> float:
        """The tower and the projector for so many pictures at once."""
        vision = self.spec.vision
        tokens, width = vision.num_positions, vision.hidden_size
        layer = 4 * width**2 + 2 * width * vision.intermediate_size
        flops = 2 * tokens * layer + 4 * tokens**2 * width
        flops *= vision.layers_used
        shuffled = width * self.spec.shuffle**2
        hidden = self.spec.text.hidden_size
        flops += 2 * self.spec.tokens_per_image * (shuffled * hidden + hidden**2)
        shard = ShardPlan.make(self.spec, 1).ranks[0]
        read_s = 2 * vision_weights(self.spec, shard) / self.ceilings.read_bytes_per_s
        return max(read_s, pictures * flops / self.ceilings.flops_per_s)
