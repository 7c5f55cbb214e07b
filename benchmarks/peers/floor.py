"""What torch alone needs for the same work: a hand-written loop over one fixed batch.

No pages, no scheduler, no sampling but argmax: merged matrices, a contiguous cache, the fastest
product that torch has for the type. Each figure is the least of the types and products tried, and
what a server takes longer is its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import gelu, linear, rms_norm, scaled_dot_product_attention, silu

from server.model.spec import ModelSpec

Matrix = Callable[[Tensor], Tensor]

BATCHES, CONTEXT = (1, 4, 16, 32), 192
"""Requests that decode, each in the middle of 64 tokens behind 160."""
PROMPTS = (128, 512)
PICTURES = (1, 4)
REPEATS = 7


def floor(checkpoint: Path) -> dict[str, float]:
    """Milliseconds by name."""
    best: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for matrix in (_plain, _packed):
            for name, value in _measured(checkpoint, dtype, matrix).items():
                best[name] = min(value, best.get(name, value))
    return best


def _measured(
    checkpoint: Path, dtype: torch.dtype, matrix: Callable[[Tensor], Matrix]
) -> dict[str, float]:
    model = Model.load(checkpoint, dtype, matrix)
    with torch.inference_mode():
        figures = {f"decode step of {n}": _least(model.decoding(n)) for n in BATCHES}
        figures |= {f"prefill of {n}": _least(model.prefilling(n)) for n in PROMPTS}
        return figures | {f"{n} pictures": _least(model.encoding(n)) for n in PICTURES}


def _least(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return min(times) * 1e3


def _plain(weight: Tensor) -> Matrix:
    return lambda x: linear(x, weight)


def _packed(weight: Tensor) -> Matrix:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 16)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


@dataclass(frozen=True, slots=True)
class TextLayer:
    norms: tuple[Tensor, Tensor]
    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class VisionLayer:
    norms: tuple[Tensor, Tensor]
    scales: tuple[Tensor, Tensor]
    query_key_norms: tuple[Tensor, Tensor]
    qkv: Matrix
    out: tuple[Matrix, Tensor]
    mlp: tuple[Matrix, Tensor, Matrix, Tensor]


@dataclass(frozen=True, slots=True)
class Model:
    spec: ModelSpec
    dtype: torch.dtype
    embeddings: Tensor
    layers: list[TextLayer]
    norm: Tensor
    head: Matrix
    vision: list[VisionLayer]

    @staticmethod
    def load(checkpoint: Path, dtype: torch.dtype, matrix: Callable[[Tensor], Matrix]) -> Model:
        index = json.loads((checkpoint / "model.safetensors.index.json").read_text("utf-8"))
        tensors: dict[str, Tensor] = {}
        for file in sorted(set(index["weight_map"].values())):
            tensors |= {
                name: value.to(dtype) for name, value in load_file(checkpoint / file).items()
            }
        spec = ModelSpec.load(checkpoint)

        def text(index: int) -> TextLayer:
            def get(name: str) -> Tensor:
                return tensors[f"language_model.model.layers.{index}.{name}.weight"]

            merged = torch.cat([get(f"self_attn.{name}_proj") for name in "qkv"])
            return TextLayer(
                (get("input_layernorm"), get("post_attention_layernorm")),
                matrix(merged),
                matrix(get("self_attn.o_proj")),
                matrix(torch.cat([get("mlp.gate_proj"), get("mlp.up_proj")])),
                matrix(get("mlp.down_proj")),
            )

        def vision(index: int) -> VisionLayer:
            def get(name: str) -> Tensor:
                return tensors[f"vision_model.encoder.layers.{index}.{name}"]

            return VisionLayer(
                (get("norm1.weight"), get("norm2.weight")),
                (get("ls1"), get("ls2")),
                (get("attn.q_norm.weight"), get("attn.k_norm.weight")),
                matrix(get("attn.qkv.weight")),
                (matrix(get("attn.proj.weight")), get("attn.proj.bias")),
                (
                    matrix(get("mlp.fc1.weight")),
                    get("mlp.fc1.bias"),
                    matrix(get("mlp.fc2.weight")),
                    get("mlp.fc2.bias"),
                ),
            )

        return Model(
            spec,
            dtype,
            tensors["language_model.model.embed_tokens.weight"],
            [text(index) for index in range(spec.text.num_layers)],
            tensors["language_model.model.norm.weight"],
            matrix(tensors["language_model.lm_head.weight"]),
            [vision(index) for index in range(spec.vision.layers_used)],
        )

    def decoding(self, batch: int) -> Callable[[], Tensor]:
        """A step of one token each for `batch` requests."""
        caches = self._caches(batch, CONTEXT)
        ids = torch.arange(batch)[:, None]
        return lambda: self._next(ids, CONTEXT - 1, caches)

    def prefilling(self, tokens: int) -> Callable[[], Tensor]:
        caches = self._caches(1, tokens)
        ids = torch.arange(tokens)[None]
        return lambda: self._next(ids, 0, caches)

    def encoding(self, pictures: int) -> Callable[[], Tensor]:
        """The tower's layers; patches and projector are a hundredth of it."""
        size = self.spec.vision.hidden_size
        x = torch.randn(pictures, self.spec.vision.num_positions, size).to(self.dtype)
        return lambda: self._see(x)

    def _caches(self, batch: int, tokens: int) -> list[tuple[Tensor, Tensor]]:
        shape = (batch, self.spec.text.num_kv_heads, tokens, self.spec.text.head_dim)
        draw = [torch.randn(shape).to(self.dtype) for _ in range(2 * len(self.layers))]
        return list(zip(draw[::2], draw[1::2], strict=True))

    def _next(self, ids: Tensor, start: int, caches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """[B, T] ids at positions from `start` on to the [B] that follow."""
        text = self.spec.text
        x = self.embeddings[ids]
        cosine, sine = self._rotations(start, ids.shape[1])
        span = slice(start, start + ids.shape[1])
        heads = [text.num_heads, text.num_kv_heads, text.num_kv_heads]
        for layer, (keys, values) in zip(self.layers, caches, strict=True):
            normed = rms_norm(x, x.shape[-1:], layer.norms[0], text.rms_norm_eps)
            qkv = torch.unflatten(layer.qkv(normed), -1, (-1, text.head_dim)).transpose(1, 2)
            query, key, value = torch.split(qkv, heads, 1)
            keys[:, :, span], values[:, :, span] = _turned(key, cosine, sine), value
            query = _turned(query, cosine, sine)
            seen = scaled_dot_product_attention(
                query, keys, values, is_causal=start == 0, enable_gqa=True
            )
            x = x + layer.out(seen.transpose(1, 2).flatten(2))
            normed = rms_norm(x, x.shape[-1:], layer.norms[1], text.rms_norm_eps)
            gate, up = layer.gate_up(normed).chunk(2, -1)
            x = x + layer.down(silu(gate) * up)
        last = rms_norm(x[:, -1], x.shape[-1:], self.norm, text.rms_norm_eps)
        return self.head(last).argmax(-1)

    def _rotations(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        half = self.spec.text.head_dim // 2
        inverse = self.spec.text.rope_theta ** -(torch.arange(half) / half)
        angles = torch.arange(start, start + count)[:, None] * inverse
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def _see(self, x: Tensor) -> Tensor:
        width, eps = x.shape[-1:], 1e-6
        for layer in self.vision:
            normed = rms_norm(x, width, layer.norms[0], eps)
            query, key, value = layer.qkv(normed).chunk(3, -1)
            query = rms_norm(query, width, layer.query_key_norms[0], eps)
            key = rms_norm(key, width, layer.query_key_norms[1], eps)
            split = [
                torch.unflatten(part, -1, (self.spec.vision.num_heads, -1)).transpose(1, 2)
                for part in (query, key, value)
            ]
            seen = scaled_dot_product_attention(split[0], split[1], split[2])
            out, bias = layer.out
            x = x + layer.scales[0] * (out(seen.transpose(1, 2).flatten(2)) + bias)
            fc1, bias1, fc2, bias2 = layer.mlp
            inner = gelu(fc1(rms_norm(x, width, layer.norms[1], eps)) + bias1)
            x = x + layer.scales[1] * (fc2(inner) + bias2)
        return x


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine
