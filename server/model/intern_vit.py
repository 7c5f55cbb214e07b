"""InternViT: pictures to one vector per patch.

A pre-norm transformer with layer scale whose attention normalises queries and keys over the full
width, all heads together, before they are split into heads. There is no norm after the last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import SOLO, Group
from server.kernels.ops import TORCH, Ops
from server.model.layers import ActivatedLinear, Linear, NewTensor, RMSNorm, RowLinear
from server.model.shards import VisionShard, whole_tower
from server.model.spec import VisionSpec


class InternViT:
    """A rank's part of the vision tower; all of it in a group of one."""

    def __init__(
        self,
        spec: VisionSpec,
        new: NewTensor,
        shard: VisionShard | None = None,
        group: Group = SOLO,
    ) -> None:
        self.shard = shard or whole_tower(spec)
        self.embeddings = VisionEmbeddings(spec, new)
        self.layers = [VisionLayer(spec, new, self.shard, group) for _ in range(spec.layers_used)]
        self.ops: Ops = TORCH

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [N, 3, height, width] to [N, 1 + patches, hidden], class first."""
        x = self.embeddings(pixels)
        for layer in self.layers:
            x = layer(x, self.ops)
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
    def __init__(
        self,
        spec: VisionSpec,
        new: NewTensor,
        shard: VisionShard | None = None,
        group: Group = SOLO,
    ) -> None:
        shard = shard or whole_tower(spec)
        self.norm1 = RMSNorm(spec.hidden_size, spec.layer_norm_eps, new)
        self.attention = VisionAttention(spec, new, shard, group)
        self.scale1 = new(spec.hidden_size)
        self.norm2 = RMSNorm(spec.hidden_size, spec.layer_norm_eps, new)
        self.mlp = VisionMlp(spec, new, shard, group)
        self.scale2 = new(spec.hidden_size)

    def __call__(self, x: Tensor, ops: Ops = TORCH) -> Tensor:
        branch = self.attention(self.norm1(x, ops), ops)
        x, normed = self.norm2.add(x, branch, ops, self.scale1)
        return ops.add(x, self.mlp(normed, ops), self.scale2)


class VisionAttention:
    """Every token sees every token."""

    def __init__(
        self,
        spec: VisionSpec,
        new: NewTensor,
        shard: VisionShard | None = None,
        group: Group = SOLO,
    ) -> None:
        shard = shard or whole_tower(spec)
        width = len(shard.heads) * spec.head_dim
        self.heads = shard.heads
        self.head_dim = spec.head_dim
        self.qkv = Linear(spec.hidden_size, 3 * width, new, bias=spec.qkv_bias)
        self.proj = RowLinear(width, spec.hidden_size, new, group, bias=True)
        self.norm = QkNorm(spec, width, new, group) if spec.qk_normalization else None

    def __call__(self, x: Tensor, ops: Ops = TORCH) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.norm:
            q, k = self.norm(q, k, ops)
        return self.proj(ops.see(q, k, v, self.head_dim))


class QkNorm:
    """RMSNorm of queries and keys over the full width, of which a rank sees its heads' part: ranks
    add up two sums of squares for each token and nothing else."""

    def __init__(self, spec: VisionSpec, width: int, new: NewTensor, group: Group) -> None:
        """`width` is this rank's part."""
        self.q_weight = new(width)
        self.k_weight = new(width)
        self._full_width = spec.hidden_size
        self._eps = spec.layer_norm_eps
        self._group = group

    def __call__(self, q: Tensor, k: Tensor, ops: Ops) -> tuple[Tensor, Tensor]:
        squares = self._group.sum(ops.square_sums(q, k))
        return (
            ops.divide_by_root(q, squares[0], self._full_width, self.q_weight, self._eps),
            ops.divide_by_root(k, squares[1], self._full_width, self.k_weight, self._eps),
        )


class VisionMlp:
    def __init__(self, spec: VisionSpec, new: NewTensor, shard: VisionShard, group: Group) -> None:
        self.columns = shard.mlp
        self.fc1 = ActivatedLinear(spec.hidden_size, len(shard.mlp), new, "gelu", bias=True)
        self.fc2 = RowLinear(len(shard.mlp), spec.hidden_size, new, group, bias=True)

    def __call__(self, x: Tensor, ops: Ops = TORCH) -> Tensor:
        return self.fc2(self.fc1.activated(x, ops))
