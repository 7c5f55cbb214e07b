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

from server.distributed.peers import Peers
from server.errors import StartupError
from server.model.spec import ModelSpec, TextSpec, VisionSpec
from server.model.stages import check_stages, peers_of, stage_of

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
    """Of the embeddings in the first stage, of the head in the last."""
    layers: range
    num_layers: int
    """Of all stages."""

    @property
    def embeds(self) -> bool:
        """Whether the rank is of the first stage."""
        return self.layers.start == 0

    @property
    def predicts(self) -> bool:
        """Whether the rank is of the last stage."""
        return self.layers.stop == self.num_layers


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
    """Of the tower in the first stage, which alone sees."""
    projector: range
    """Of the projector's inner width; split like the tower."""
    vision_group: int
    """Ranks of one vision group share a tower; groups encode different pictures."""
    peers: Peers


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Parts of all ranks, in their order: those of the last stage first."""

    ranks: tuple[RankShard, ...]
    vision_tp: int
    stages: int = 1

    @classmethod
    def make(
        cls, spec: ModelSpec, size: int, vision_tp: int | None = None, *, stages: int = 1
    ) -> ShardPlan:
        """Splits a model into `stages` stages of `size` ranks, its vision tower over groups of
        `vision_tp` ranks of the first stage (all of them by default).

        Raises:
            StartupError: there are more ranks than heads, more stages than layers, or the groups
                do not divide the ranks of a stage.
        """
        vision_tp = size if vision_tp is None else vision_tp
        if size < 1 or vision_tp < 1 or size % vision_tp:
            raise StartupError(
                f"vision groups of {vision_tp} ranks do not divide {size} ranks: choose a divisor"
            )
        _check_heads(size, spec.text.num_heads, "language model")
        _check_heads(vision_tp, spec.vision.num_heads, "vision tower")
        check_stages(stages, spec.text.num_layers)
        text = [split_text(spec.text, size, layers) for layers in split_layers(spec, stages)]
        vision = split_vision(spec.vision, vision_tp)
        projector = even(spec.text.hidden_size, vision_tp, MLP_UNIT)
        ranks = []
        for rank in range(size * stages):
            stage, place = stage_of(rank, size, stages), rank % size
            ranks.append(
                RankShard(
                    rank=rank,
                    text=text[stage][place],
                    vision=vision[place % vision_tp],
                    projector=projector[place % vision_tp],
                    vision_group=place // vision_tp,
                    peers=peers_of(rank, size, vision_tp, stages),
                )
            )
        return cls(tuple(ranks), vision_tp, stages)


def split_layers(spec: ModelSpec, stages: int) -> list[range]:
    """The layers of each stage, so that stages hold about equally much.

    The model card's `split_model` counts the vision tower as half a GPU's worth of layers. Here
    every part counts what it holds, which is the memory it needs and, but for the tower, what a
    decode step reads: tower, projector and embeddings in the first stage, the head in the last.
    """
    text = spec.text
    layer = layer_weights(text, split_text(text, 1)[0]) // text.num_layers
    head = text.vocab_size * text.hidden_size
    loads = [0] * stages
    loads[0] += tower_weights(spec, whole_tower(spec.vision), range(text.hidden_size)) + head
    loads[-1] += head
    return balanced(text.num_layers, loads, layer, 1)


def _check_heads(size: int, heads: int, what: str) -> None:
    if size > heads:
        raise StartupError(
            f"{size} ranks cannot share the {heads} attention heads of the {what}: use at most "
            f"{heads}"
        )


def split_text(spec: TextSpec, size: int, layers: range | None = None) -> list[TextShard]:
    """`layers` of the language model, all of them by default, over `size` ranks."""
    layers = range(spec.num_layers) if layers is None else layers
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
    return [
        TextShard(*parts, layers, spec.num_layers)
        for parts in zip(heads, kv_heads, mlp, vocabulary, strict=True)
    ]


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
    return len(shard.layers) * spec.hidden_size * (heads + 3 * len(shard.mlp))


def layer_weights(spec: TextSpec, shard: TextShard) -> int:
    """Parameters of the layers of the language model that a rank holds."""
    return text_matrices(spec, shard) + 2 * len(shard.layers) * spec.hidden_size


def text_weights(spec: TextSpec, shard: TextShard) -> int:
    """Parameters of the language model that a rank holds."""
    norm = shard.predicts * spec.hidden_size
    ends = embedding_weights(spec, shard) + norm + head_weights(spec, shard)
    return layer_weights(spec, shard) + ends


def embedding_weights(spec: TextSpec, shard: TextShard) -> int:
    """Parameters of the embeddings of tokens that a rank holds."""
    return shard.embeds * len(shard.vocabulary) * spec.hidden_size


def head_weights(spec: TextSpec, shard: TextShard) -> int:
    """Parameters of the matrix that gives logits, as far as a rank holds it."""
    return shard.predicts * len(shard.vocabulary) * spec.hidden_size


def vision_weights(spec: ModelSpec, shard: RankShard) -> int:
    """Parameters of the vision tower and the projector that a rank holds."""
    return shard.text.embeds * tower_weights(spec, shard.vision, shard.projector)


def tower_weights(spec: ModelSpec, shard: VisionShard, inner: range) -> int:
    """The same for a part of the tower and `inner` columns of the projector."""
    vision, width = spec.vision, spec.vision.hidden_size
    own_width = vision.head_dim * len(shard.heads)
    attention = 4 * width * own_width
    attention += (2 * vision.qk_normalization + 3 * vision.qkv_bias) * own_width
    mlp = (2 * width + 1) * len(shard.mlp)
    # Two norms, two scales, and the biases of the two products that ranks add up.
    layer = attention + mlp + 6 * width
    shuffled = width * spec.shuffle**2
    projector = 2 * shuffled + (shuffled + 1) * len(inner)
    projector += (len(inner) + 1) * spec.text.hidden_size
    return vision.layers_used * layer + patch_weights(spec) + projector


def patch_weights(spec: ModelSpec) -> int:
    """Parameters that make vectors of patches, with the class token and the positions."""
    vision = spec.vision
    return vision.hidden_size * (3 * vision.patch_size**2 + vision.num_positions + 2)
