"""The names of a checkpoint's tensors: which part of which parameter each of them fills.

The layout is that of InternVL-Chat-V1-2. A tensor that is kept together with others (query, key and
value; gate and up) is named as a view of the joined parameter, so copying into it is all a loader
has to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from server.model.intern_vit import InternViT, VisionLayer
from server.model.internvl import InternVLChat, Projector
from server.model.layers import META, LayerNorm, Linear, RMSNorm
from server.model.llama import Llama, LlamaLayer

Named = Iterator[tuple[str, Tensor]]


def checkpoint_tensors(model: InternVLChat) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name. Those of vision layers that feed nothing are on the
    meta device: they belong to the checkpoint and not to the model."""
    tensors = dict(_vision(model.vision))
    for index in range(model.spec.vision.layers_used, model.spec.vision.num_layers):
        tensors.update(_vision_layer(index, VisionLayer(model.spec.vision, META)))
    tensors.update(_projector(model.projector))
    tensors.update(_language(model.language))
    return tensors


def _vision(vision: InternViT) -> Named:
    embeddings, prefix = vision.embeddings, "vision_model.embeddings"
    side = embeddings.patch_size
    assert embeddings.patch.bias is not None
    yield f"{prefix}.class_embedding", embeddings.class_token
    yield f"{prefix}.position_embedding", embeddings.positions
    yield f"{prefix}.patch_embedding.weight", embeddings.patch.weight.view(-1, 3, side, side)
    yield f"{prefix}.patch_embedding.bias", embeddings.patch.bias
    for index, layer in enumerate(vision.layers):
        yield from _vision_layer(index, layer)


def _vision_layer(index: int, layer: VisionLayer) -> Named:
    prefix = f"vision_model.encoder.layers.{index}"
    yield from _module(f"{prefix}.norm1", layer.norm1)
    yield from _module(f"{prefix}.attn.qkv", layer.attention.qkv)
    if layer.attention.q_norm and layer.attention.k_norm:
        yield from _module(f"{prefix}.attn.q_norm", layer.attention.q_norm)
        yield from _module(f"{prefix}.attn.k_norm", layer.attention.k_norm)
    yield from _module(f"{prefix}.attn.proj", layer.attention.proj)
    yield f"{prefix}.ls1", layer.scale1
    yield from _module(f"{prefix}.norm2", layer.norm2)
    yield from _module(f"{prefix}.mlp.fc1", layer.mlp.fc1)
    yield from _module(f"{prefix}.mlp.fc2", layer.mlp.fc2)
    yield f"{prefix}.ls2", layer.scale2


def _projector(projector: Projector) -> Named:
    yield from _module("mlp1.0", projector.norm)
    yield from _module("mlp1.1", projector.fc1)
    yield from _module("mlp1.3", projector.fc2)


def _language(language: Llama) -> Named:
    yield "language_model.model.embed_tokens.weight", language.embed_tokens
    for index, layer in enumerate(language.layers):
        yield from _language_layer(f"language_model.model.layers.{index}", layer)
    yield from _module("language_model.model.norm", language.norm)
    yield from _module("language_model.lm_head", language.lm_head)


def _language_layer(prefix: str, layer: LlamaLayer) -> Named:
    attention, mlp = layer.attention, layer.mlp
    widths = [count * attention.head_dim for count in attention.heads]
    q, k, v = torch.split(attention.qkv.weight, widths)
    gate, up = mlp.gate_up.weight.chunk(2)
    yield from _module(f"{prefix}.input_layernorm", layer.input_norm)
    yield f"{prefix}.self_attn.q_proj.weight", q
    yield f"{prefix}.self_attn.k_proj.weight", k
    yield f"{prefix}.self_attn.v_proj.weight", v
    yield from _module(f"{prefix}.self_attn.o_proj", attention.out)
    yield from _module(f"{prefix}.post_attention_layernorm", layer.post_attention_norm)
    yield f"{prefix}.mlp.gate_proj.weight", gate
    yield f"{prefix}.mlp.up_proj.weight", up
    yield from _module(f"{prefix}.mlp.down_proj", mlp.down)


def _module(name: str, module: Linear | RMSNorm | LayerNorm) -> Named:
    yield f"{name}.weight", module.weight
    bias = getattr(module, "bias", None)
    if bias is not None:
        yield f"{name}.bias", bias
