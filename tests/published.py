"""Names and shapes of the published 40B checkpoint, from its model card and files."""

from __future__ import annotations


def published_shapes() -> dict[str, list[int]]:
    """Of all 1,138 tensors."""
    return _vision() | _projector() | _language()


def _vision() -> dict[str, list[int]]:
    width, inner = 3200, 12800
    shapes = {
        "embeddings.class_embedding": [1, 1, width],
        "embeddings.position_embedding": [1, 1025, width],
        "embeddings.patch_embedding.weight": [width, 3, 14, 14],
        "embeddings.patch_embedding.bias": [width],
    }
    layer = {
        "norm1.weight": [width],
        "norm2.weight": [width],
        "attn.qkv.weight": [3 * width, width],
        "attn.q_norm.weight": [width],
        "attn.k_norm.weight": [width],
        "attn.proj.weight": [width, width],
        "attn.proj.bias": [width],
        "mlp.fc1.weight": [inner, width],
        "mlp.fc1.bias": [inner],
        "mlp.fc2.weight": [width, inner],
        "mlp.fc2.bias": [width],
        "ls1": [width],
        "ls2": [width],
    }
    for index in range(45):
        shapes |= {f"encoder.layers.{index}.{name}": shape for name, shape in layer.items()}
    return {f"vision_model.{name}": list(shape) for name, shape in shapes.items()}


def _projector() -> dict[str, list[int]]:
    return {
        "mlp1.0.weight": [12800],
        "mlp1.0.bias": [12800],
        "mlp1.1.weight": [7168, 12800],
        "mlp1.1.bias": [7168],
        "mlp1.3.weight": [7168, 7168],
        "mlp1.3.bias": [7168],
    }


def _language() -> dict[str, list[int]]:
    width, inner, vocabulary = 7168, 20480, 64007
    shapes = {
        "model.embed_tokens.weight": [vocabulary, width],
        "model.norm.weight": [width],
        "lm_head.weight": [vocabulary, width],
    }
    layer = {
        "input_layernorm.weight": [width],
        "post_attention_layernorm.weight": [width],
        "self_attn.q_proj.weight": [width, width],
        "self_attn.k_proj.weight": [1024, width],
        "self_attn.v_proj.weight": [1024, width],
        "self_attn.o_proj.weight": [width, width],
        "mlp.gate_proj.weight": [inner, width],
        "mlp.up_proj.weight": [inner, width],
        "mlp.down_proj.weight": [width, inner],
    }
    for index in range(60):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return {f"language_model.{name}": list(shape) for name, shape in shapes.items()}
