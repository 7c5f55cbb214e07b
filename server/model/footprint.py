"""How a rank's memory divides: weights by quantization, activations, and a token of context.

Pure arithmetic, for the planner before a download and for a rank when it starts. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.model.shards import (
    RankShard,
    ShardPlan,
    TextShard,
    embedding_weights,
    head_weights,
    patch_weights,
    text_matrices,
    text_weights,
    vision_weights,
)
from server.model.spec import ModelSpec, TextSpec
from server.settings import Quantization

MATRIX_BITS: dict[Quantization, int] = {"int8": 8, "fp8": 8, "int4": 5}
"""For each weight; every 32 weights of int4 share a scale and an offset. The scales of the others,
one for each output, are nothing beside these."""

VALUE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""By the types that a checkpoint may have."""

STEP_TOKENS = 2048
STEP_PICTURES = 8
"""The largest step that activations are planned for."""

IMAGE_SLOTS = 64


@dataclass(frozen=True, slots=True)
class RankMemory:
    """What a rank takes, in bytes."""

    shard: RankShard
    text: int
    vision: int
    activations: int
    kv_token: int
    """A token of context."""

    @property
    def weights(self) -> int:
        return self.text + self.vision


def plan_memory(
    spec: ModelSpec,
    plan: ShardPlan,
    *,
    bytes_per_value: int,
    matrix_bytes: int | None = None,
    kv_bytes: int | None = None,
    quantization: Quantization = "none",
) -> tuple[RankMemory, ...]:
    """Of each rank.

    Args:
        matrix_bytes, kv_bytes: of a value in a plain matrix and in the KV cache, where that is not
            the type of the others.
    """
    text = spec.text
    matrix_bytes = matrix_bytes or bytes_per_value
    table_bytes = min(bytes_per_value, VALUE_BYTES[spec.dtype])
    head = 2 * text.head_dim * (kv_bytes or bytes_per_value)
    return tuple(
        RankMemory(
            shard=shard,
            text=text_bytes(
                text,
                shard.text,
                bytes_per_value,
                matrix_bytes=matrix_bytes,
                table_bytes=table_bytes,
                quantization=quantization,
            ),
            vision=_vision_bytes(spec, shard, bytes_per_value, matrix_bytes),
            activations=bytes_per_value * _activations(spec, shard),
            kv_token=head * len(shard.text.kv_heads) * len(shard.text.layers),
        )
        for shard in plan.ranks
    )


def text_bytes(
    spec: TextSpec,
    shard: TextShard,
    bytes_per_value: int,
    *,
    matrix_bytes: int,
    table_bytes: int,
    quantization: Quantization,
) -> int:
    """A rank's part of the language model. Embeddings and the head are not quantised.

    Args:
        table_bytes: of a value in the embeddings, which stay as they are stored.
    """
    matrices, head = text_matrices(spec, shard), head_weights(spec, shard)
    table = embedding_weights(spec, shard)
    others = text_weights(spec, shard) - matrices - head - table
    bits = MATRIX_BITS.get(quantization, 8 * matrix_bytes)
    ends = head * matrix_bytes + table * table_bytes
    return matrices * bits // 8 + ends + others * bytes_per_value


def _vision_bytes(
    spec: ModelSpec, shard: RankShard, bytes_per_value: int, matrix_bytes: int
) -> int:
    """Its part of the tower and the projector. Norms and scales count as matrices: they are next to
    nothing; the embeddings of patches are not."""
    embeddings = shard.text.embeds * patch_weights(spec)
    matrices = vision_weights(spec, shard) - embeddings
    return matrices * matrix_bytes + embeddings * bytes_per_value


def _activations(spec: ModelSpec, shard: RankShard) -> int:
    """Values that live at once in the widest part of a layer, of a step's tokens or of its
    pictures, and the embeddings of pictures that are kept, both where the tower is."""
    text, vision = spec.text, spec.vision
    heads = (len(shard.text.heads) + 2 * len(shard.text.kv_heads)) * text.head_dim
    tokens = STEP_TOKENS * (4 * text.hidden_size + heads + 3 * len(shard.text.mlp))
    if not shard.text.embeds:
        return tokens
    patch = 4 * vision.hidden_size + 2 * max(
        len(shard.vision.mlp), 3 * vision.head_dim * len(shard.vision.heads)
    )
    kept = IMAGE_SLOTS * spec.tokens_per_image * text.hidden_size
    return kept + max(tokens, STEP_PICTURES * vision.num_positions * patch)
