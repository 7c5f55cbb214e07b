from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.model.intern_vit import InternViT, VisionAttention
from server.model.internvl import InternVLChat, normalise
from server.model.layers import new_on
from server.model.spec import VisionSpec

TOLERANCE = 1e-4

SPEC = VisionSpec(
    image_size=28,
    patch_size=14,
    hidden_size=12,
    intermediate_size=16,
    num_layers=3,
    num_heads=3,
    layer_norm_eps=1e-6,
    qk_normalization=True,
    qkv_bias=False,
    layers_used=3,
)
CPU_FLOAT = new_on(torch.device("cpu"), torch.float32)


def test_hidden_states_of_every_layer(
    golden_model: InternVLChat, golden_images: dict[str, Tensor]
) -> None:
    vit = golden_model.vision
    x = vit.embeddings(golden_images["rgb_square.pixel_values"][None])
    expected = golden_images["rgb_square.vit_hidden_states"]
    assert_close(x[0], expected[0], atol=TOLERANCE, rtol=0)
    for layer, state in zip(vit.layers, expected[1:], strict=True):
        x = layer(x)
        assert_close(x[0], state, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["rgb_square", "rgb_wide", "rgba", "exif6"])
def test_last_hidden_state(
    golden_model: InternVLChat, golden_images: dict[str, Tensor], name: str
) -> None:
    pixels = normalise(golden_images[f"{name}.resized_u8"][None])
    expected = golden_images[f"{name}.vit_last_hidden"]
    assert_close(golden_model.vision(pixels)[0], expected, atol=TOLERANCE, rtol=0)


def test_positions_are_interpolated_for_another_grid(
    golden_model: InternVLChat, golden_images: dict[str, Tensor]
) -> None:
    y, x = np.mgrid[0:84, 0:84]
    waves = np.stack([np.sin(0.11 * (channel + 1) * x + 0.07 * y) for channel in range(3)])
    state = golden_model.vision(torch.from_numpy(waves.astype(np.float32))[None])[0]
    expected = golden_images["synthetic_grid.vit_last_hidden"]
    assert_close(state, expected, atol=TOLERANCE, rtol=0)


def test_a_grid_need_not_be_square(golden_model: InternVLChat) -> None:
    assert golden_model.vision(torch.zeros(2, 3, 28, 70)).shape == (2, 1 + 2 * 5, 200)


def test_patches_are_the_authors_convolution(golden_model: InternVLChat) -> None:
    embeddings = golden_model.vision.embeddings
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    weight = embeddings.patch.weight.view(-1, 3, 14, 14)
    convolved = torch.conv2d(pixels, weight, embeddings.patch.bias, stride=14).flatten(2).mT
    tokens = embeddings(pixels) - embeddings.positions
    assert_close(tokens[:, 1:], convolved, atol=1e-5, rtol=0)


def test_layers_past_the_selected_one_are_not_built() -> None:
    assert len(InternViT(replace(SPEC, layers_used=2), CPU_FLOAT).layers) == 2


def seeded_attention(spec: VisionSpec) -> VisionAttention:
    generator = torch.Generator().manual_seed(0)
    return VisionAttention(spec, lambda *shape: torch.randn(shape, generator=generator))


@pytest.mark.parametrize("qk_normalization", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_equals_a_loop_over_heads(qk_normalization: bool, qkv_bias: bool) -> None:
    spec = replace(SPEC, qk_normalization=qk_normalization, qkv_bias=qkv_bias)
    attention = seeded_attention(spec)
    x = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(1))
    assert (attention.qkv.bias is not None) == qkv_bias
    q, k, v = attention.qkv(x)[0].chunk(3, dim=-1)
    if attention.norm:
        q, k = (
            part * torch.rsqrt(part.square().mean(-1, keepdim=True) + 1e-6) * weight
            for part, weight in ((q, attention.norm.q_weight), (k, attention.norm.k_weight))
        )
    heads = [slice(4 * head, 4 * head + 4) for head in range(3)]
    scores = [torch.softmax(q[:, head] @ k[:, head].T / 2, dim=-1) for head in heads]
    attended = torch.cat([s @ v[:, head] for s, head in zip(scores, heads, strict=True)], dim=-1)
    assert_close(attention(x)[0], attention.proj(attended), atol=1e-4, rtol=1e-4)
