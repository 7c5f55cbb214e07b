"""InternVL-Chat: the vision tower, the projector and the language model, joined.

The tower turns a picture into tokens of the language model's width; whoever builds a step puts them
in the place of the picture's placeholder embeddings. The order of those tokens is part of the
published weights: see `pixel_shuffle`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group, Groups
from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.ops import Ops
from server.model.intern_vit import InternViT
from server.model.layers import META, LayerNorm, Linear, NewTensor, RowLinear
from server.model.llama import Llama
from server.model.shards import RankShard, ShardPlan
from server.model.spec import ModelSpec

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class InternVLChat:
    """A rank's part of the model.

    Args:
        new: allocates the parameters.
        shard: which part; the whole model where there is one rank.
        groups: the ranks that hold the others.
        matrices: allocates what can be quantised, where `new` does not.
        table: allocates the embeddings of tokens, where `new` does not.
    """

    def __init__(
        self,
        spec: ModelSpec,
        new: NewTensor,
        shard: RankShard | None = None,
        groups: Groups | None = None,
        matrices: NewTensor | None = None,
        *,
        table: NewTensor | None = None,
    ) -> None:
        shard = shard or ShardPlan.make(spec, 1).ranks[0]
        groups = groups or Groups()
        self.spec = spec
        self.shard = shard
        new_first = new if shard.text.embeds else META
        self.vision = InternViT(spec.vision, new_first, shard.vision, groups.vision)
        self.projector = Projector(spec, new_first, shard.projector, groups.vision)
        self.language = Llama(spec.text, new, shard.text, groups.model, matrices, table=table)

    def use(self, ops: Ops) -> None:
        """Lets `ops` do what stands between the matrix products, from here on."""
        self.vision.ops = ops
        self.language.ops = ops

    @property
    def dtype(self) -> torch.dtype:
        return self.language.layers[0].input_norm.weight.dtype

    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 RGB [N, height, width, 3] on the device to [N, tokens_per_image, hidden]."""
        states = self.vision(normalise(pixels).to(self.dtype))
        rows = pixels.shape[1] // self.spec.vision.patch_size
        patches = torch.unflatten(states[:, 1:], 1, (rows, -1))
        return self.projector(pixel_shuffle(patches, self.spec.shuffle, self.spec.ps_version))

    def embed(self, token_ids: Tensor) -> Tensor:
        """[T] to [T, hidden]."""
        return self.language.embed(token_ids).to(self.dtype)

    def forward(
        self, hidden: Tensor, cache: KVCache, batch: AttentionBatch, wanted: Tensor | None = None
    ) -> Tensor:
        """Embeddings of a step, or what the stage before made of them, [T, hidden], through this
        rank's layers. For `wanted` see `Llama.forward`."""
        return self.language.forward(hidden, cache, batch, wanted)

    def logits(self, hidden: Tensor) -> Tensor:
        """Rows of what `forward` returned, [R, hidden], to float32 [R, this rank's vocabulary]."""
        return self.language.logits(hidden)


class Projector:
    """Shuffled patches to the language model's width."""

    def __init__(self, spec: ModelSpec, new: NewTensor, inner: range, group: Group) -> None:
        """`inner` is this rank's part of the width between the two products."""
        width = spec.vision.hidden_size * spec.shuffle**2
        self.inner = inner
        self.norm = LayerNorm(width, new)
        self.fc1 = Linear(width, len(inner), new, bias=True)
        self.fc2 = RowLinear(len(inner), spec.text.hidden_size, new, group, bias=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [N, height, width, 3] to float32 [N, 3, height, width] with the mean and deviation that
    the tower was trained with."""
    # Channel by channel with plain numbers: nothing is copied to the device, so graphs can hold it.
    channels = (pixels.float() / 255).unbind(-1)
    return torch.stack(
        [(x - mean) / std for x, mean, std in zip(channels, PIXEL_MEAN, PIXEL_STD, strict=True)], 1
    )


def pixel_shuffle(patches: Tensor, side: int, version: str) -> Tensor:
    """Makes one token of each `side` x `side` square of patches.

    Inside a token the patches follow row by row. The tokens follow row by row in v2; in v1 column
    by column, an accident of the first release that its weights have learned.

    Args:
        patches: [N, rows, columns, channels].

    Returns:
        [N, rows * columns / side², channels * side²].
    """
    squares = torch.unflatten(torch.unflatten(patches, 2, (-1, side)), 1, (-1, side))
    # [N, square row, row, square column, column, channels]
    order = (0, 3, 1, 2, 4, 5) if version == "v1" else (0, 1, 3, 2, 4, 5)
    return squares.permute(order).flatten(3).flatten(1, 2)
