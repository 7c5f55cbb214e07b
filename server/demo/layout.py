"""The json files of a checkpoint folder in the layout of InternVL-Chat-V1-2, for any sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.demo.random_tokenizer import tokenizer_files
from server.model.internvl import PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True, slots=True)
class CheckpointShape:
    """Sizes of a checkpoint; everything else is as in the 40B model."""

    image_size: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    text_hidden: int
    text_layers: int
    text_heads: int
    text_kv_heads: int
    head_dim: int
    text_mlp: int
    vocab_size: int
    max_positions: int = 4096


def write_json_files(folder: Path, shape: CheckpointShape) -> dict[str, Any]:
    """Writes all but `tokenizer.model` and the weights; returns the content of config.json."""
    config = _config(shape)
    files = {
        "config.json": config,
        "generation_config.json": {"_from_model_config": True},
        "preprocessor_config.json": _preprocessor_config(shape),
        **tokenizer_files(shape.vocab_size, shape.max_positions),
    }
    for name, content in files.items():
        write_json(folder / name, content)
    return config


def _config(shape: CheckpointShape) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": False,
        "force_image_size": shape.image_size,
        "pad2square": False,
        "ps_version": "v1",
        "select_layer": -1,
        "system_message": "Answer the questions.",
        "template": "Hermes-2",
        "torch_dtype": "bfloat16",
        "use_thumbnail": False,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "hidden_size": shape.vision_hidden,
            "image_size": shape.image_size,
            "intermediate_size": shape.vision_mlp,
            "layer_norm_eps": 1e-6,
            "norm_type": "rms_norm",
            "num_attention_heads": shape.vision_heads,
            "num_channels": 3,
            "num_hidden_layers": shape.vision_layers,
            "patch_size": 14,
            "qk_normalization": True,
            "qkv_bias": False,
        },
        "llm_config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 7,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "hidden_size": shape.text_hidden,
            "intermediate_size": shape.text_mlp,
            "max_position_embeddings": shape.max_positions,
            "num_attention_heads": shape.text_heads,
            "num_hidden_layers": shape.text_layers,
            "num_key_value_heads": shape.text_kv_heads,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-5,
            "rope_scaling": None,
            "rope_theta": 5000000.0,
            "tie_word_embeddings": False,
            "vocab_size": shape.vocab_size,
        },
    }


def _preprocessor_config(shape: CheckpointShape) -> dict[str, Any]:
    return {
        "crop_size": shape.image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        "resample": 3,
        "size": shape.image_size,
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
