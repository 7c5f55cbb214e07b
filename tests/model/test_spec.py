from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from server.errors import CheckpointError
from server.model.spec import DEFAULT_SYSTEM_MESSAGE, ModelSpec, parse_config
from tests import golden

CONFIG: dict[str, Any] = json.loads((golden.CHECKPOINT / "config.json").read_text())

PUBLISHED: dict[str, Any] = {
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "force_image_size": 448,
    "template": "Hermes-2",
    "torch_dtype": "bfloat16",
    "vision_config": {
        "hidden_size": 3200,
        "num_hidden_layers": 45,
        "num_attention_heads": 25,
        "intermediate_size": 12800,
        "image_size": 448,
        "patch_size": 14,
        "qk_normalization": True,
        "qkv_bias": False,
    },
    "llm_config": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 7168,
        "intermediate_size": 20480,
        "num_hidden_layers": 60,
        "num_attention_heads": 56,
        "num_key_value_heads": 8,
        "vocab_size": 64007,
        "rope_theta": 5000000,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    },
}
"""What is known of the 40B's file; the fields that it leaves out are those that may be absent."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """The golden config with one field set; None removes it."""
    config = copy.deepcopy(CONFIG)
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    if value is None:
        del section[key]
    else:
        section[key] = value
    return config


def test_the_published_model() -> None:
    spec = parse_config(PUBLISHED)
    assert spec.tokens_per_image == 256
    assert spec.vision.head_dim == spec.text.head_dim == 128
    assert spec.vision.num_positions == 1025
    assert spec.vision.layers_used == 45
    assert spec.ps_version == "v1"
    assert spec.system_message == DEFAULT_SYSTEM_MESSAGE
    assert abs(spec.image_cost_tokens - 176) <= 2


def test_an_empty_system_message_is_kept() -> None:
    assert parse_config(changed("system_message", "")).system_message == ""


@pytest.mark.parametrize(("select_layer", "used"), [(-1, 3), (-2, 2), (3, 3), (1, 1)])
def test_select_layer_counts_states_from_either_end(select_layer: int, used: int) -> None:
    assert parse_config(changed("select_layer", select_layer)).vision.layers_used == used


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "llama", "`model_type` is 'llama'"),
        ("dynamic_image_size", True, "`dynamic_image_size` is True"),
        ("template", "internlm2-chat", "`template` is 'internlm2-chat'"),
        ("ps_version", "v3", "`ps_version` is 'v3'"),
        ("torch_dtype", "int8", "`torch_dtype` is 'int8'"),
        ("select_layer", None, "`select_layer` is missing"),
        ("select_layer", -9, "`select_layer` -9 names none of 3 layers"),
        ("downsample_ratio", 0.3, "`downsample_ratio` 0.3 does not divide"),
        ("vision_config", None, "`vision_config` is missing"),
        ("vision_config.hidden_size", None, "`vision_config.hidden_size` is missing"),
        ("vision_config.hidden_size", 201, "`vision_config.hidden_size` 201 is not a multiple"),
        ("vision_config.norm_type", "layer_norm", "`vision_config.norm_type` is 'layer_norm'"),
        ("llm_config.architectures", ["InternLM2ForCausalLM"], "`llm_config.architectures`"),
        ("llm_config.vocab_size", "many", "`llm_config.vocab_size` is not of type int"),
        ("llm_config.num_key_value_heads", 3, "`llm_config.num_attention_heads` 8 is not a"),
        ("llm_config.rope_scaling", {"type": "linear"}, "`llm_config.rope_scaling`"),
        ("llm_config.rms_norm_eps", True, "`llm_config.rms_norm_eps` is not of type float"),
    ],
)
def test_what_cannot_be_served_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        parse_config(changed(path, value))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("{", "cannot be read as JSON"), ("[]", "holds no JSON object")],
)
def test_a_folder_without_a_config_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        ModelSpec.load(tmp_path)
