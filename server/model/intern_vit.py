"""InternViT: pictures to one vector per patch.

A pre-norm transformer with layer scale whose attention normalises queries and keys over the full
width, all heads together, before they are split into heads. There is no norm after the last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.model.layers import Linear, NewTensor, RMSNorm
from server.model.spec import VisionSpec


class InternViT:
    def __init__(self, spec: VisionSpec, new: NewTensor) -> None:
        self.embeddings = VisionEmbeddings(spec, new)
        self.layers = [VisionLayer(spec, new) for _ in range(spec.layers_used)]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [N, 3, height, width] to [N, 1 + patches, hidden], class first."""
        x = self.embeddings(pixels)
        for layer in self.layers:
            x = layer(x)
        return x


class VisionEmbeddings:
    """Patches row by row, after a class token, each with a learned position."""

    def __init__(self, spec: VisionSpec, new: NewTensor) -> None:
        self.patch_size = spec.patch_size
        self.grid = spec.grid
        self.patch = Linear(3 * spec.patch_size**2, spec.hidden_size, new, bias=True)
        self.class_token = new(1, 1, spec.hidden_size)
        self.positions = new(1, spec.num_positions, spec.hidden_size)

    def __call__(self, pixels: Tensor) -> Tensor:
        count, channels, height, width = pixels.shape
        side = self.patch_size
        rows, columns = height // side, width // side
        # A convolution that never overlaps is a linear map of each patch.
        patches = pixels.view(count, channels, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)
        x = self.patch(patches)
        x = torch.cat([self.class_token.expand(count, -1, -1), x], dim=1)
        return x + self._positions(rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """[1, 1 + rows * columns, hidden]; interpolated where the grid is not the native one."""
        if rows == columns == self.grid:
            return self.positions
        class_token, patches = torch.split(self.positions, [1, self.grid**2], dim=1)
        square = torch.unflatten(patches.mT, 2, (self.grid, self.grid)).float()
        square = functional.interpolate(
            square, (rows, columns), mode="bicubic", align_corners=False
        )
        return torch.cat([class_token, square.flatten(2).mT.to(patches.dtype)], dim=1)


class VisionLayer:
    def __init__(self, spec: VisionSpec, new: NewTensor) -> None:
        self.norm1 = RMSNorm(spec.hidden_size, spec.layer_norm_eps, new)
        self.attention = VisionAttention(spec, new)
        self.scale1 = new(spec.hidden_size)
        self.norm2 = RMSNorm(spec.hidden_size, spec.layer_norm_eps, new)
        self.mlp = VisionMlp(spec, new)
        self.scale2 = new(spec.hidden_size)

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.attention(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))


class VisionAttention:
    """Every token sees every token."""

    def __init__(self, spec: VisionSpec, new: NewTensor) -> None:
        width = spec.hidden_size
        self.head_dim = spec.head_dim
        self.qkv = Linear(width, 3 * width, new, bias=spec.qkv_bias)
        self.proj = Linear(width, width, new, bias=True)
        self.q_norm, self.k_norm = None, None
        if spec.qk_normalization:
            self.q_norm = RMSNorm(width, spec.layer_norm_eps, new)
            self.k_norm = RMSNorm(width, spec.layer_norm_eps, new)

    def __call__(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.q_norm and self.k_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (self._split_heads(part) for part in (q, k, v))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """[N, tokens, width] to [N, heads, tokens, head_dim]."""
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)


class VisionMlp:
    def __init__(self, spec: VisionSpec, new: NewTensor) -> None:
        self.fc1 = Linear(spec.hidden_size, spec.intermediate_size, new, bias=True)
        self.fc2 = Linear(spec.intermediate_size, spec.hidden_size, new, bias=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))
