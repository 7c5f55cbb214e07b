"""What a checkpoint folder says about itself, parsed once into frozen values.

Only data is read: no code that a checkpoint names is ever imported, and nothing asks on stdin.
A field that the model cannot be right without is required; the defaults of the others are those of
the authors' config classes. This module imports no torch: the API process and the planner use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import CheckpointError

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """InternViT: sizes of the tower and of the picture it sees."""

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    layer_norm_eps: float
    qk_normalization: bool
    qkv_bias: bool
    layers_used: int
    """Layers whose output feeds the projector; `select_layer` -1 uses all of them."""

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def num_positions(self) -> int:
        """Patches and the class token."""
        return self.grid**2 + 1


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Llama: sizes of the language model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    max_positions: int


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """Sampling defaults of the checkpoint's language model, for `--generation-defaults model`."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The whole model."""

    vision: VisionSpec
    text: TextSpec
    generation: GenerationSpec
    shuffle: int
    """Side of the square of patches that becomes one token: 1 / downsample_ratio."""
    ps_version: str
    """Order of the image tokens: v1 column by column, v2 row by row."""
    template: str
    system_message: str
    dtype: str

    @property
    def tokens_per_image(self) -> int:
        return (self.vision.grid // self.shuffle) ** 2

    @property
    def image_cost_tokens(self) -> int:
        """Arithmetic of one picture in the vision tower and projector, in language-model tokens."""
        vision, text = self.vision, self.text
        vision_layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        vision_layer += 2 * vision.num_positions * vision.hidden_size  # scores and their product
        shuffled = vision.hidden_size * self.shuffle**2
        projector = self.tokens_per_image * (shuffled + text.hidden_size) * text.hidden_size
        picture = vision.layers_used * vision.num_positions * vision_layer + projector
        query_and_out = 2 * text.num_heads * text.head_dim
        key_and_value = 2 * text.num_kv_heads * text.head_dim
        token = (
            text.num_layers
            * text.hidden_size
            * (query_and_out + key_and_value + 3 * text.intermediate_size)
            + text.vocab_size * text.hidden_size
        )
        return max(1, round(picture / token))

    @classmethod
    def load(cls, folder: Path) -> ModelSpec:
        """Reads `config.json` of a folder.

        Raises:
            CheckpointError: a file is missing or a value is one this server cannot be right with.
        """
        return parse_config(read_json(folder / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


class _Section:
    """One object of config.json: typed access that names what is missing or wrong."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self._values = values
        self._name = name

    def section(self, key: str) -> _Section:
        value = self._values.get(key)
        if not isinstance(value, dict):
            raise CheckpointError(f"config.json: `{key}` is missing or not an object")
        return _Section(value, f"{self._name}{key}.")

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Value of `key`, or `default` where the key is absent; None as default requires it."""
        value = self._values.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            what = "is missing" if key not in self._values else f"is not of type {kind.__name__}"
            raise CheckpointError(f"config.json: `{self._name}{key}` {what}")
        return value

    def demand(self, key: str, allowed: tuple[Any, ...], default: Any) -> Any:
        """Value of `key`, which must be one of `allowed`."""
        value = self._values.get(key, default)
        if value not in allowed:
            raise CheckpointError(
                f"config.json: `{self._name}{key}` is {value!r}; this server supports "
                f"{', '.join(map(repr, allowed))}"
            )
        return value

    def demand_multiple(self, key: str, value: int, divisor: int) -> None:
        if divisor < 1 or value % divisor:
            raise CheckpointError(
                f"config.json: `{self._name}{key}` {value} is not a multiple of {divisor}"
            )


DEFAULT_SYSTEM_MESSAGE = "Answer the questions."
"""What the authors' Hermes-2 template of the model's release said; config.json overrides it."""


def parse_config(config: Mapping[str, Any]) -> ModelSpec:
    """Turns the content of config.json into a `ModelSpec`.

    Raises:
        CheckpointError: names the field that is missing or not supported.
    """
    top = _Section(config, "")
    top.demand("model_type", ("internvl_chat",), None)
    top.demand("dynamic_image_size", (False,), False)
    top.demand("pad2square", (False,), False)
    vision_config, text_config = top.section("vision_config"), top.section("llm_config")
    vision = _parse_vision(vision_config, top)
    text = _parse_text(text_config)
    ratio = top.get("downsample_ratio", float, 0.5)
    shuffle = round(1 / ratio) if ratio > 0 else 0
    if shuffle < 1 or vision.grid % shuffle:
        raise CheckpointError(
            f"config.json: `downsample_ratio` {ratio} does not divide a grid of "
            f"{vision.grid} x {vision.grid} patches"
        )
    return ModelSpec(
        vision=vision,
        text=text,
        generation=GenerationSpec(
            temperature=text_config.get("temperature", float, 1.0),
            top_p=text_config.get("top_p", float, 1.0),
            top_k=text_config.get("top_k", int, 50),
            repetition_penalty=text_config.get("repetition_penalty", float, 1.0),
        ),
        shuffle=shuffle,
        ps_version=top.demand("ps_version", ("v1", "v2"), "v1"),
        template=top.demand("template", ("Hermes-2",), None),
        system_message=top.get("system_message", str, DEFAULT_SYSTEM_MESSAGE),
        dtype=top.demand("torch_dtype", DTYPES, "bfloat16"),
    )


def _parse_vision(config: _Section, top: _Section) -> VisionSpec:
    config.demand("norm_type", ("rms_norm",), "rms_norm")
    config.demand("hidden_act", ("gelu",), "gelu")
    config.demand("num_channels", (3,), 3)
    image_size = config.get("image_size", int)
    top.demand("force_image_size", (image_size, None), None)
    num_layers = config.get("num_hidden_layers", int)
    # The authors' default was -4 before it was -1: an absent value is only safe for this tower.
    select_layer = top.get("select_layer", int, -1 if num_layers == 45 else None)
    layers_used = select_layer + 1 + num_layers if select_layer < 0 else select_layer
    if not 0 < layers_used <= num_layers:
        raise CheckpointError(
            f"config.json: `select_layer` {select_layer} names none of {num_layers} layers"
        )
    hidden_size, num_heads = config.get("hidden_size", int), config.get("num_attention_heads", int)
    config.demand_multiple("hidden_size", hidden_size, num_heads)
    return VisionSpec(
        image_size=image_size,
        patch_size=config.get("patch_size", int),
        hidden_size=hidden_size,
        intermediate_size=config.get("intermediate_size", int),
        num_layers=num_layers,
        num_heads=num_heads,
        layer_norm_eps=config.get("layer_norm_eps", float, 1e-6),
        qk_normalization=config.get("qk_normalization", bool, True),
        qkv_bias=config.get("qkv_bias", bool, False),
        layers_used=layers_used,
    )


def _parse_text(config: _Section) -> TextSpec:
    config.demand("architectures", (["LlamaForCausalLM"],), ["LlamaForCausalLM"])
    config.demand("hidden_act", ("silu",), "silu")
    config.demand("attention_bias", (False,), False)
    config.demand("rope_scaling", (None,), None)
    config.demand("tie_word_embeddings", (False,), False)
    hidden_size = config.get("hidden_size", int)
    num_heads = config.get("num_attention_heads", int)
    num_kv_heads = config.get("num_key_value_heads", int, num_heads)
    config.demand_multiple("hidden_size", hidden_size, num_heads)
    config.demand_multiple("num_attention_heads", num_heads, num_kv_heads)
    return TextSpec(
        vocab_size=config.get("vocab_size", int),
        hidden_size=hidden_size,
        intermediate_size=config.get("intermediate_size", int),
        num_layers=config.get("num_hidden_layers", int),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=config.get("head_dim", int, hidden_size // num_heads),
        rope_theta=config.get("rope_theta", float, 10000.0),
        rms_norm_eps=config.get("rms_norm_eps", float, 1e-6),
        max_positions=config.get("max_position_embeddings", int, 2048),
    )
