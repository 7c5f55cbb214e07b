"""The names of a checkpoint's tensors: which part of which parameter each of them fills.

The layout is that of InternVL-Chat-V1-2. A tensor that is kept together with others (query, key and
value; gate and up) is named as rows of the joined parameter, and a rank's part of a tensor by where
it is cut out, so copying is all a loader has to do. Parts of one parameter follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise

from torch import Tensor

from server.model.intern_vit import InternViT, VisionAttention, VisionLayer
from server.model.internvl import InternVLChat, Projector
from server.model.layers import META, LayerNorm, Linear, RMSNorm, RowLinear
from server.model.llama import Llama, LlamaLayer

EMBEDDINGS = "language_model.model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Part:
    """What `rows` of a parameter take of a stored tensor: as much as they hold along `dim`, from
    `start` on."""

    parameter: Tensor | Linear
    rows: range | None = None
    """None for all of them."""
    dim: int = 0
    start: int = 0

    @property
    def target(self) -> Tensor:
        whole = self.parameter.weight if isinstance(self.parameter, Linear) else self.parameter
        return whole if self.rows is None else whole[self.rows.start : self.rows.stop]


Named = Iterator[tuple[str, Part]]


def checkpoint_parts(model: InternVLChat) -> dict[str, list[Part]]:
    """What a rank needs of every tensor of a checkpoint, by name. Targets of vision layers that
    feed nothing are on the meta device: they belong to the checkpoint and not to the model."""
    parts: dict[str, list[Part]] = {}
    for name, part in chain(_model(model), _unused_layers(model)):
        parts.setdefault(name, []).append(part)
    return parts


@dataclass(frozen=True, slots=True)
class Filling:
    """A parameter that a rank holds, and what it takes of which tensors."""

    parameter: Tensor | Linear
    parts: list[tuple[str, Part]]

    @property
    def deferred(self) -> Linear | None:
        """The parameter, where it gets memory only to be filled and packed."""
        linear = self.parameter
        return linear if isinstance(linear, Linear) and linear.weight.is_meta else None


def fillings(model: InternVLChat) -> list[Filling]:
    """All of them, in the model's order."""
    named = list(_model(model))
    groups = groupby(named, key=lambda entry: id(entry[1].parameter))
    parts = [list(group) for _, group in groups]
    return [Filling(group[0][1].parameter, group) for group in parts]


def linears(model: InternVLChat) -> list[Linear]:
    """The plain matrices, but for the patch embedding."""
    held = [filling.parameter for filling in fillings(model)]
    return [p for p in held if isinstance(p, Linear) and not p.weight.is_meta]


def held_bytes(model: InternVLChat) -> int:
    """Memory of a rank's parameters."""
    held = [filling.parameter for filling in fillings(model)]
    return sum(p.size_bytes if isinstance(p, Linear) else p.nbytes for p in held)


def checkpoint_tensors(model: InternVLChat) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, as a model of one rank holds them."""
    return {name: part.target for name, (part,) in checkpoint_parts(model).items()}


def _model(model: InternVLChat) -> Named:
    if model.shard.text.embeds:
        yield from _vision(model.vision)
        yield from _projector(model.projector)
    yield from _language(model.language)


def _unused_layers(model: InternVLChat) -> Named:
    vision = model.spec.vision
    for index in range(vision.layers_used, vision.num_layers):
        yield from _vision_layer(index, VisionLayer(vision, META))


def _vision(vision: InternViT) -> Named:
    embeddings, prefix = vision.embeddings, "vision_model.embeddings"
    side = embeddings.patch_size
    assert embeddings.patch.bias is not None
    yield f"{prefix}.class_embedding", Part(embeddings.class_token)
    yield f"{prefix}.position_embedding", Part(embeddings.positions)
    yield f"{prefix}.patch_embedding.weight", Part(embeddings.patch.weight.view(-1, 3, side, side))
    yield f"{prefix}.patch_embedding.bias", Part(embeddings.patch.bias)
    for index, layer in enumerate(vision.layers):
        yield from _vision_layer(index, layer)


def _vision_layer(index: int, layer: VisionLayer) -> Named:
    prefix = f"vision_model.encoder.layers.{index}"
    yield from _norm(f"{prefix}.norm1", layer.norm1)
    yield from _vision_attention(f"{prefix}.attn", layer.attention)
    yield f"{prefix}.ls1", Part(layer.scale1)
    yield from _norm(f"{prefix}.norm2", layer.norm2)
    yield from _columns(f"{prefix}.mlp.fc1", layer.mlp.fc1, layer.mlp.columns.start)
    yield from _rows(f"{prefix}.mlp.fc2", layer.mlp.fc2, layer.mlp.columns.start)
    yield f"{prefix}.ls2", Part(layer.scale2)


def _vision_attention(prefix: str, attention: VisionAttention) -> Named:
    """One stored matrix holds all queries, then all keys, then all values."""
    first = attention.heads.start * attention.head_dim
    full_width, width = attention.proj.weight.shape
    for name, parameter in (("weight", attention.qkv), ("bias", attention.qkv.bias)):
        if parameter is None:
            continue
        if width == full_width:
            yield f"{prefix}.qkv.{name}", Part(parameter)
            continue
        for index in range(3):
            rows = range(index * width, (index + 1) * width)
            yield f"{prefix}.qkv.{name}", Part(parameter, rows, start=index * full_width + first)
    if attention.norm:
        yield f"{prefix}.q_norm.weight", Part(attention.norm.q_weight, start=first)
        yield f"{prefix}.k_norm.weight", Part(attention.norm.k_weight, start=first)
    yield from _rows(f"{prefix}.proj", attention.proj, first)


def _projector(projector: Projector) -> Named:
    yield from _norm("mlp1.0", projector.norm)
    yield from _columns("mlp1.1", projector.fc1, projector.inner.start)
    yield from _rows("mlp1.3", projector.fc2, projector.inner.start)


def _language(language: Llama) -> Named:
    first = language.shard.vocabulary.start
    if language.shard.embeds:
        yield EMBEDDINGS, Part(language.embed_tokens, start=first)
    for index, layer in zip(language.shard.layers, language.layers, strict=True):
        yield from _language_layer(f"language_model.model.layers.{index}", layer, language)
    if language.shard.predicts:
        yield from _norm("language_model.model.norm", language.norm)
        yield from _columns("language_model.lm_head", language.lm_head, first)


def _language_layer(prefix: str, layer: LlamaLayer, language: Llama) -> Named:
    attention, mlp, shard = layer.attention, layer.mlp, language.shard
    size = attention.head_dim
    q, k, v = _rows_of(attention.qkv, [count * size for count in attention.heads])
    gate, up = _rows_of(mlp.gate_up, [len(shard.mlp)] * 2)
    first, first_kv = shard.heads.start * size, shard.kv_heads.start * size
    yield from _norm(f"{prefix}.input_layernorm", layer.input_norm)
    yield f"{prefix}.self_attn.q_proj.weight", Part(attention.qkv, q, start=first)
    yield f"{prefix}.self_attn.k_proj.weight", Part(attention.qkv, k, start=first_kv)
    yield f"{prefix}.self_attn.v_proj.weight", Part(attention.qkv, v, start=first_kv)
    yield from _rows(f"{prefix}.self_attn.o_proj", attention.out, first)
    yield from _norm(f"{prefix}.post_attention_layernorm", layer.post_attention_norm)
    yield f"{prefix}.mlp.gate_proj.weight", Part(mlp.gate_up, gate, start=shard.mlp.start)
    yield f"{prefix}.mlp.up_proj.weight", Part(mlp.gate_up, up, start=shard.mlp.start)
    yield from _rows(f"{prefix}.mlp.down_proj", mlp.down, shard.mlp.start)


def _rows_of(linear: Linear, counts: Sequence[int]) -> list[range]:
    """The rows of matrices that are joined to one."""
    ends = list(accumulate(counts, initial=0))
    assert ends[-1] == len(linear.weight)
    return [range(start, end) for start, end in pairwise(ends)]


def _norm(name: str, norm: RMSNorm | LayerNorm) -> Named:
    yield f"{name}.weight", Part(norm.weight)
    if isinstance(norm, LayerNorm):
        yield f"{name}.bias", Part(norm.bias)


def _columns(name: str, linear: Linear, start: int) -> Named:
    """A matrix of which a rank has some of the outputs."""
    yield f"{name}.weight", Part(linear, start=start)
    if linear.bias is not None:
        yield f"{name}.bias", Part(linear.bias, start=start)


def _rows(name: str, linear: RowLinear, start: int) -> Named:
    """A matrix of which a rank has some of the inputs; the bias is everybody's."""
    yield f"{name}.weight", Part(linear, dim=1, start=start)
    if linear.bias is not None:
        yield f"{name}.bias", Part(linear.bias)
