"""Llama over a paged KV cache: the tokens of one step, of any number of sequences, as rows.

The model knows no sequences and no phases; which tokens see which is the attention batch's
business. Query, key and value weights are one matrix, and so are gate and up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import SOLO, Group
from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.ops import TORCH, Ops, Rotary
from server.model.layers import META, ActivatedLinear, Linear, NewTensor, RMSNorm, RowLinear
from server.model.shards import TextShard, split_text
from server.model.spec import TextSpec


def kept_dtype(stored: torch.dtype, hidden: torch.dtype) -> torch.dtype:
    """Of the embeddings, which are looked up and never multiplied: as they are stored, if that is
    smaller and holds nothing that `hidden` does not."""
    return stored if torch.promote_types(stored, hidden) == hidden else hidden


class Llama:
    """A rank's part of the language model; all of it in a group of one.

    A stage holds some of the layers. The embeddings take memory where the first layers are, norm
    and head where the last ones are.

    Args:
        matrices: allocates the matrices of the layers, where `new` does not.
        table: allocates the embeddings, where `new` does not.
    """

    def __init__(
        self,
        spec: TextSpec,
        new: NewTensor,
        shard: TextShard | None = None,
        group: Group = SOLO,
        matrices: NewTensor | None = None,
        *,
        table: NewTensor | None = None,
    ) -> None:
        shard = shard or split_text(spec, 1)[0]
        self.shard = shard
        self.head_dim = spec.head_dim
        self.rope_theta = spec.rope_theta
        new_table = (table or new) if shard.embeds else META
        new_last = new if shard.predicts else META
        self.embed_tokens = new_table(len(shard.vocabulary), spec.hidden_size)
        self.layers = [
            LlamaLayer(spec, index, new, shard, group, matrices=matrices or new)
            for index in range(len(shard.layers))
        ]
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, new_last)
        self.lm_head = Linear(spec.hidden_size, len(shard.vocabulary), new_last)
        self.ops: Ops = TORCH
        self._group = group

    def embed(self, token_ids: Tensor) -> Tensor:
        """[T] to [T, hidden], as the embeddings are stored. Each rank looks up the ids of its part
        of the vocabulary."""
        if self._group.size == 1:
            return functional.embedding(token_ids, self.embed_tokens)
        rows = token_ids - self.shard.vocabulary.start
        elsewhere = (rows < 0) | (rows >= len(self.shard.vocabulary))
        found = functional.embedding(rows.masked_fill(elsewhere, 0), self.embed_tokens)
        return self._group.sum(found.masked_fill(elsewhere[:, None], 0))

    def forward(
        self, x: Tensor, cache: KVCache, batch: AttentionBatch, wanted: Tensor | None = None
    ) -> Tensor:
        """[T, hidden] through this rank's layers, without the final norm; writes the cache of T
        positions.

        Args:
            wanted: tokens whose states somebody reads, [R]; the last layer leaves the others out.
        """
        rotary = Rotary(batch.positions, self.head_dim, self.rope_theta, x.dtype)
        branch = None
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            read = wanted if index == last else None
            x, branch = layer(x, branch, rotary, cache, batch, ops=self.ops, wanted=read)
        return x if branch is None else self.ops.add(x, branch)

    def logits(self, x: Tensor) -> Tensor:
        """What `forward` returned for R tokens, [R, hidden], to float32 logits of this rank's part
        of the vocabulary, [R, vocab]."""
        return self.lm_head(self.norm(x, self.ops)).float()


class LlamaLayer:
    def __init__(
        self,
        spec: TextSpec,
        index: int,
        new: NewTensor,
        shard: TextShard,
        group: Group,
        *,
        matrices: NewTensor,
    ) -> None:
        """`index` counts the layers of this rank."""
        self.input_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, new)
        self.attention = LlamaAttention(spec, index, matrices, shard, group)
        self.post_attention_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, new)
        self.mlp = LlamaMlp(spec, matrices, shard, group)

    def __call__(
        self,
        x: Tensor,
        branch: Tensor | None,
        rotary: Rotary,
        cache: KVCache,
        batch: AttentionBatch,
        *,
        ops: Ops,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Takes and returns the sum of all layers before in two parts: additions wait for the norm
        that follows, to be one with it. Returns that of the tokens `wanted`, if not of all."""
        if branch is None:
            normed = self.input_norm(x, ops)
        else:
            x, normed = self.input_norm.add(x, branch, ops)
        attended = self.attention(normed, rotary, cache, batch, ops=ops)
        if wanted is not None:
            x, attended = x[wanted], attended[wanted]
            if not len(wanted):  # keys and values are there, and some kernels take no empty matrix
                return x, x
        x, normed = self.post_attention_norm.add(x, self.attention.out(attended), ops)
        return x, self.mlp(normed, ops)


class LlamaAttention:
    def __init__(
        self, spec: TextSpec, index: int, new: NewTensor, shard: TextShard, group: Group
    ) -> None:
        self.index = index
        self.head_dim = spec.head_dim
        self.heads = [len(shard.heads), len(shard.kv_heads), len(shard.kv_heads)]
        self.qkv = Linear(spec.hidden_size, sum(self.heads) * spec.head_dim, new)
        self.out = RowLinear(len(shard.heads) * spec.head_dim, spec.hidden_size, new, group)

    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        cache: KVCache,
        batch: AttentionBatch,
        *,
        ops: Ops,
    ) -> Tensor:
        """What the heads read, [T, heads * head_dim], to be multiplied by `out`."""
        qkv = torch.unflatten(self.qkv(x), -1, (-1, self.head_dim))
        attended = ops.rotate_and_attend(
            self.index, qkv, rotary, heads=self.heads, cache=cache, batch=batch
        )
        return attended.flatten(1)


class LlamaMlp:
    def __init__(self, spec: TextSpec, new: NewTensor, shard: TextShard, group: Group) -> None:
        self.gate_up = ActivatedLinear(spec.hidden_size, 2 * len(shard.mlp), new, "silu_mul")
        self.down = RowLinear(len(shard.mlp), spec.hidden_size, new, group)

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        return self.down(self.gate_up.activated(x, ops))
