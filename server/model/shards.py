"""Who holds which part of the model: pure arithmetic for any number of ranks.

Attention is split by query heads, whole groups of one KV head where there are enough of them, so a
rank never serves two KV heads in part. The columns of an MLP make up for what heads cannot: a rank
with fewer heads gets more of them. Every range is contiguous and none is empty; together they
partition the whole. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from server.errors import StartupError
from server.model.spec import ModelSpec, TextSpec, VisionSpec

MLP_UNIT = 32
"""Columns are dealt in multiples of this: matrix kernels like round numbers, and on seven ranks of
the 40B 64 columns are already 1.7 % of a rank's weights."""

VOCABULARY_UNIT = 64


@dataclass(frozen=True, slots=True)
class TextShard:
    """A rank's part of the language model."""

    heads: range
    kv_heads: range
    """Those that the rank's query heads read; several ranks hold one that they share."""
    mlp: range
    vocabulary: range


@dataclass(frozen=True, slots=True)
class VisionShard:
    """A rank's part of the vision tower."""

    heads: range
    mlp: range


@dataclass(frozen=True, slots=True)
class RankShard:
    rank: int
    text: TextShard
    vision: VisionShard
    projector: range
    """Of the projector's inner width; split like the tower."""
    vision_group: int
    """Ranks of one vision group share a tower; groups encode different pictures."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Parts of all ranks, in their order."""

    ranks: tuple[RankShard, ...]
    vision_tp: int

    @classmethod
    def make(cls, spec: ModelSpec, size: int, vision_tp: int | None = None) -> ShardPlan:
        """Splits a model over `size` ranks, its vision tower over groups of `vision_tp` (all of
        them by default).

        Raises:
            StartupError: there are more ranks than heads, or the groups do not divide the ranks.
        """
        vision_tp = size if vision_tp is None else vision_tp
        if size < 1 or vision_tp < 1 or size % vision_tp:
            raise StartupError(
                f"vision groups of {vision_tp} ranks do not divide {size} ranks: choose a divisor"
            )
        _check_heads(size, spec.text.num_heads, "language model")
        _check_heads(vision_tp, spec.vision.num_heads, "vision tower")
        text = split_text(spec.text, size)
        vision = split_vision(spec.vision, vision_tp)
        projector = even(spec.text.hidden_size, vision_tp, MLP_UNIT)
        return cls(
            ranks=tuple(
                RankShard(
                    rank=rank,
                    text=text[rank],
                    vision=vision[rank % vision_tp],
                    projector=projector[rank % vision_tp],
                    vision_group=rank // vision_tp,
                )
                for rank in range(size)
            ),
            vision_tp=vision_tp,
        )


def _check_heads(size: int, heads: int, what: str) -> None:
    if size > heads:
        raise StartupError(
            f"{size} ranks cannot share the {heads} attention heads of the {what}: use at most "
            f"{heads}"
        )


def split_text(spec: TextSpec, size: int) -> list[TextShard]:
    """The language model over `size` ranks."""
    group = spec.num_heads // spec.num_kv_heads
    if size <= spec.num_kv_heads:
        kv_heads = even(spec.num_kv_heads, size)
        heads = [range(kv.start * group, kv.stop * group) for kv in kv_heads]
    else:
        kv_heads, heads = _share_kv_heads(spec.num_kv_heads, group, size)
    # Weights of one layer that a head and a column bring along.
    head_weights = 2 * spec.hidden_size * spec.head_dim
    column_weights = 3 * spec.hidden_size
    loads = [head_weights * (len(q) + len(kv)) for q, kv in zip(heads, kv_heads, strict=True)]
    mlp = balanced(spec.intermediate_size, loads, column_weights, MLP_UNIT)
    vocabulary = even(spec.vocab_size, size, VOCABULARY_UNIT)
    return [TextShard(*parts) for parts in zip(heads, kv_heads, mlp, vocabulary, strict=True)]


def _share_kv_heads(num_kv_heads: int, group: int, size: int) -> tuple[list[range], list[range]]:
    """More ranks than KV heads: each rank serves one of them, for a part of its query heads."""
    kv_heads, heads = [], []
    for kv_head, ranks in enumerate(even(size, num_kv_heads)):
        if len(ranks) > group:
            raise StartupError(
                f"{size} ranks cannot share {num_kv_heads} KV heads with {group} query heads each"
            )
        for part in even(group, len(ranks)):
            kv_heads.append(range(kv_head, kv_head + 1))
            heads.append(range(kv_head * group + part.start, kv_head * group + part.stop))
    return kv_heads, heads


def split_vision(spec: VisionSpec, size: int) -> list[VisionShard]:
    """The vision tower over the `size` ranks of a group."""
    heads = even(spec.num_heads, size)
    loads = [4 * spec.hidden_size * spec.head_dim * len(part) for part in heads]
    mlp = balanced(spec.intermediate_size, loads, 2 * spec.hidden_size, MLP_UNIT)
    return [VisionShard(*parts) for parts in zip(heads, mlp, strict=True)]


def whole_tower(spec: VisionSpec) -> VisionShard:
    return split_vision(spec, 1)[0]


def even(total: int, parts: int, unit: int = 1) -> list[range]:
    """Contiguous ranges that differ by one unit at most, the larger ones first; the last one ends
    where the whole does, in the middle of a unit if need be. With too few units the unit is 1."""
    units = -(-total // unit)
    if units < parts:
        return even(total, parts)
    share, more = divmod(units, parts)
    sizes = [(share + (part < more)) * unit for part in range(parts)]
    ends = [min(end, total) for end in accumulate(sizes, initial=0)]
    return [range(start, end) for start, end in pairwise(ends)]


def balanced(total: int, loads: Sequence[int], cost: int, unit: int) -> list[range]:
    """Contiguous ranges of `total` columns that even out the `loads` which their owners carry
    already, when a column costs `cost`. Every range has at least one unit."""
    parts = len(loads)
    units, last = divmod(total, unit)
    if last or units < parts:
        units, unit = total, 1
    whole = sum(loads) + total * cost
    wanted = [max(1.0, (whole / parts - load) / cost / unit) for load in loads]
    scale = units / sum(wanted)
    exact = [want * scale for want in wanted]
    sizes = [max(1, int(size)) for size in exact]
    # What rounding left over goes where most is missing.
    while sum(sizes) != units:
        step = 1 if sum(sizes) < units else -1
        candidates = [part for part in range(parts) if sizes[part] + step >= 1]
        part = max(candidates, key=lambda part: (exact[part] - sizes[part]) * step)
        sizes[part] += step
    ends = list(accumulate(sizes, initial=0))
    return [range(a * unit, b * unit) for a, b in pairwise(ends)]


def text_matrices(spec: TextSpec, shard: TextShard) -> int:
    """Parameters in the matrices of the language model's layers that a rank holds: what can be
    quantised."""
    heads = 2 * spec.head_dim * (len(shard.heads) + len(shard.kv_heads))
    return spec.num_layers * spec.hidden_size * (heads + 3 * len(shard.mlp))


def text_weights(spec: TextSpec, shard: TextShard) -> int:
    """Parameters of the language model that a rank holds."""
    norms = (2 * spec.num_layers + 1) * spec.hidden_size
    return text_matrices(spec, shard) + 2 * len(shard.vocabulary) * spec.hidden_size + norms


def vision_weights(spec: ModelSpec, shard: RankShard) -> int:
    """Parameters of the vision tower and the projector that a rank holds."""
    vision, width = spec.vision, spec.vision.hidden_size
    own_width = vision.head_dim * len(shard.vision.heads)
    attention = 4 * width * own_width
    attention += (2 * vision.qk_normalization + 3 * vision.qkv_bias) * own_width
    mlp = (2 * width + 1) * len(shard.vision.mlp)
    # Two norms, two scales, and the biases of the two products that ranks add up.
    layer = attention + mlp + 6 * width
    embeddings = 3 * width * vision.patch_size**2 + width * (vision.num_positions + 2)
    shuffled = width * spec.shuffle**2
    inner = len(shard.projector)
    projector = 2 * shuffled + (shuffled + 1) * inner + (inner + 1) * spec.text.hidden_size
    return vision.layers_used * layer + embeddings + projector
