"""The served model as a thing to train: parameters with gradients, attention without a cache.

The mathematics is `server.model`'s, so nothing can differ between training and serving but the
attention's bookkeeping. Two linear heads exist in training alone: one says what each patch of the
vision tower shows, the other, half way through the language model, what the words of a question
name.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from server.demo.examples import IGNORED, Batch
from server.demo.mentions import MENTION_CLASSES
from server.demo.pictures import PATCH_CLASSES
from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.ops import Ops, TorchOps
from server.model.checkpoint import checkpoint_tensors
from server.model.internvl import InternVLChat, normalise, pixel_shuffle
from server.model.spec import ModelSpec, TextSpec

ROWS_UNIT = 64
"""As `LENGTH_UNIT`, for the rows that are learned."""

PATCH_HEAD, MENTION_HEAD = HEADS = ("patch_head", "mention_head")
"""Names of the tensors that no checkpoint has."""

TOWER = ("vision_model.", PATCH_HEAD)
"""How names of the vision tower's tensors begin."""

Teaches = Literal["each alone", "both", "language"]
"""What a batch teaches: the tower by its patches and the language model by the answers; the tower
by the answers, too; or the language model alone. What a language model that knows nothing yet would
teach the tower is noise, which undoes what patches have taught."""


@dataclass(frozen=True, slots=True)
class Losses:
    answers: Tensor
    patches: Tensor
    mentions: Tensor
    right: Tensor
    """Whether each branch was answered right to the last token, given the right tokens before:
    bool [B, branches]; false where there is no branch."""


class Network:
    def __init__(
        self,
        spec: ModelSpec,
        picture_token: int,
        seed: int,
        device: torch.device,
        ops: Ops | None = None,
    ) -> None:
        self.spec = spec
        self._picture_token = picture_token
        self.device = device
        self._gradients: list[Tensor] = []
        self.model = InternVLChat(spec, self._new)
        self.model.use(ops or TrainingOps())
        self.patch_head = self._new(sum(PATCH_CLASSES), spec.vision.hidden_size)
        self.mention_head = self._new(sum(MENTION_CLASSES), spec.text.hidden_size)
        self._initialise(torch.Generator().manual_seed(seed))

    def _new(self, *shape: int) -> Tensor:
        parameter = torch.zeros(shape, device=self.device, requires_grad=True)
        gradient = torch.zeros_like(parameter, requires_grad=False)
        parameter.grad = gradient
        self._gradients.append(gradient)
        return parameter

    def weights(self) -> dict[str, Tensor]:
        """Parameters by their names in a checkpoint, without gradients; some are views of joined
        ones."""
        with torch.no_grad():
            heads = {PATCH_HEAD: self.patch_head, MENTION_HEAD: self.mention_head}
            return checkpoint_tensors(self.model) | heads

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by the names of their weights. They stay where they are and add up."""
        gradients = iter(self._gradients)
        # A model of gradients: what joins or splits parameters does the same to them.
        model = InternVLChat(self.spec, lambda *_: next(gradients))
        return checkpoint_tensors(model) | {name: next(gradients) for name in HEADS}

    def clear_gradients(self) -> None:
        for gradient in self._gradients:
            gradient.zero_()

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, tensor in checkpoint_tensors(self.model).items():
            tensor.copy_(_first_values(name, tensor.shape, self.spec, generator))

    def losses(self, batch: Batch, teaches: Teaches = "both") -> Losses:
        """Mean losses of the answers' tokens, of the patches and of the mentions."""
        with torch.set_grad_enabled(teaches != "language"):
            states = self._see(batch)[:, 1:]
            patches = self._patch_loss(states, batch.patches)
        if not batch.token_ids.numel():
            return Losses(patches.new_zeros(()), patches, patches.new_zeros(()), torch.zeros(0, 0))
        rows = math.isqrt(states.shape[1])
        grid = torch.unflatten(states if teaches == "both" else states.detach(), 1, (rows, -1))
        shuffled = pixel_shuffle(grid, self.spec.shuffle, self.spec.ps_version)
        pictures = self.model.projector(_turn(shuffled, batch.turned))
        hidden = self.model.embed(batch.token_ids.flatten())
        places = (batch.token_ids == self._picture_token).flatten()
        hidden = hidden.masked_scatter(places[:, None], pictures.to(hidden.dtype))
        targets = batch.targets.flatten()
        learned = _rows_of(targets != IGNORED)
        middle, hidden = self._read(hidden, batch, learned)
        logits = self.model.logits(hidden)
        loss = functional.cross_entropy(logits, targets[learned], ignore_index=IGNORED)
        wrong = logits.argmax(-1) != targets[learned]
        mentions = self._mention_loss(middle, batch.mentions)
        return Losses(loss, patches, mentions, _right(batch, learned, wrong))

    def _read(self, hidden: Tensor, batch: Batch, learned: Tensor) -> tuple[Tensor, Tensor]:
        """States half way through the language model's layers, and those of some rows behind
        them."""
        cache = _no_cache(self.spec, self.device)
        mixed = torch.is_autocast_enabled(self.device.type)
        dtype = torch.get_autocast_dtype(self.device.type) if mixed else hidden.dtype
        # It has no `build`: nothing here is paged.
        attention = cast(AttentionBatch, BranchAttention.of(batch, self.spec.text, dtype))
        lower, upper = copy(self.model.language), copy(self.model.language)
        half = len(lower.layers) // 2
        lower.layers, upper.layers = lower.layers[:half], upper.layers[half:]
        middle = lower.forward(hidden, cache, attention)
        return middle, upper.forward(middle, cache, attention, learned)

    def _mention_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        labels = labels.flatten(0, 1)
        named = _rows_of((labels != IGNORED).any(-1))
        normed = functional.rms_norm(states[named], states.shape[-1:])
        logits = functional.linear(normed, self.mention_head).float()
        labels = labels[named]
        loss = logits.new_zeros(())
        for index, part in enumerate(torch.split(logits, list(MENTION_CLASSES), dim=-1)):
            each = functional.cross_entropy(part, labels[:, index], reduction="none")
            loss = loss + each.sum() / (labels[:, index] != IGNORED).sum().clamp(min=1)
        return loss

    def _see(self, batch: Batch) -> Tensor:
        """The vision tower, where pictures smaller than the model's are windows of its grid.

        Serving would stretch the positions; here a patch and its neighbour stay as far apart as
        they will be in whole pictures, so what is learned on small ones holds there too.
        """
        vision = self.model.vision
        embeddings = copy(vision.embeddings)
        side = batch.pixels.shape[1] // embeddings.patch_size
        if side < embeddings.grid:
            row, column = batch.window
            class_token, patches = embeddings.positions[:, :1], embeddings.positions[:, 1:]
            square = torch.unflatten(patches, 1, (embeddings.grid, -1))
            window = square[:, row : row + side, column : column + side].flatten(1, 2)
            embeddings.positions = torch.cat([class_token, window], dim=1)
            embeddings.grid = side
        x = embeddings(normalise(batch.pixels))
        for layer in vision.layers:
            x = layer(x, self.model.vision.ops)
        return x

    def _patch_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        normed = functional.rms_norm(states, states.shape[-1:])
        logits = functional.linear(normed, self.patch_head).flatten(0, 1).float()
        labels = labels.flatten(0, 1)
        loss = logits.new_zeros(())
        for index, part in enumerate(torch.split(logits, list(PATCH_CLASSES), dim=-1)):
            each = functional.cross_entropy(part, labels[:, index], reduction="none")
            shown = (labels[:, index] > 0).float()
            # What is shown counts as much as what is not, however little it is.
            loss = loss + (each * shown).sum() / shown.sum().clamp(min=1)
            loss = loss + (each * (1 - shown)).sum() / (1 - shown).sum().clamp(min=1)
        return loss


def _turn(tokens: Tensor, turned: Tensor) -> Tensor:
    """Swaps rows and columns of the tokens of some pictures, [N, side², width]."""
    side = math.isqrt(tokens.shape[1])
    swapped = torch.unflatten(tokens, 1, (side, side)).transpose(1, 2).flatten(1, 2)
    return torch.where(turned[:, None, None], swapped, tokens)


def _rows_of(chosen: Tensor) -> Tensor:
    """Indices of the chosen rows, [R], and then of some others that make their number a multiple of
    `ROWS_UNIT`."""
    count = int(chosen.sum())
    order = chosen.byte().argsort(descending=True, stable=True)
    return order[: count + -count % ROWS_UNIT]


def _right(batch: Batch, learned: Tensor, wrong: Tensor) -> Tensor:
    learned, wrong = (x[batch.targets.flatten()[learned] != IGNORED] for x in (learned, wrong))
    branches = batch.branches.flatten()[learned] - 1
    rows = torch.arange(len(batch.branches), device=branches.device)
    rows = rows[:, None].expand_as(batch.branches).flatten()[learned]
    most = max(map(len, batch.categories))
    asked = torch.zeros(len(batch.branches), most, device=branches.device)
    failed = asked.index_put((rows, branches), wrong.float(), accumulate=True)
    asked[rows, branches] = 1
    return (asked > 0) & (failed == 0)


@dataclass(frozen=True, slots=True)
class BranchAttention:
    """An `AttentionBatch` over whole sequences: a token sees the prefix and its own branch."""

    positions: Tensor
    rows: int
    bias: Tensor
    """0 or -inf: [rows * kv heads, heads of a group * L, L]"""

    @classmethod
    def of(cls, batch: Batch, text: TextSpec, dtype: torch.dtype) -> BranchAttention:
        branches = batch.branches
        length = branches.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
        same = branches[:, :, None] == branches[:, None, :]
        seen = earlier & (same | (branches[:, None, :] == 0))
        bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        bias = bias.masked_fill_(~seen, -torch.inf).repeat_interleave(text.num_kv_heads, dim=0)
        bias = bias.repeat(1, text.num_heads // text.num_kv_heads, 1)
        return cls(batch.positions.flatten(), len(branches), bias)

    def write_and_attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: KVCache
    ) -> Tensor:
        q, k, v = (torch.unflatten(x, 0, (self.rows, -1)).transpose(1, 2) for x in (q, k, v))
        # The heads of a group are rows of one product with the keys that they share.
        grouped = q.reshape(len(self.bias), -1, q.shape[-1])
        attended = _attend(grouped, k.flatten(0, 1), v.flatten(0, 1), self.bias)
        return attended.reshape(q.shape).transpose(1, 2).flatten(0, 1)


class TrainingOps(TorchOps):
    """Attention as training does it."""

    def see(self, q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
        q, k, v = (torch.unflatten(x, -1, (-1, head_dim)).transpose(1, 2) for x in (q, k, v))
        return _attend(q, k, v).transpose(1, 2).flatten(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of [..., L, head_dim], in the type of the values: mixed precision leaves normalised
    and rotated queries and keys wider."""
    q, k = q.to(v.dtype), k.to(v.dtype)
    if v.device.type == "cuda" or v.dtype == torch.float32:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # Of CPUs torch's own takes twice as long in bfloat16.
    with torch.autocast(v.device.type, enabled=False):
        q = q * q.shape[-1] ** -0.5
        scores = q @ k.mT if bias is None else torch.baddbmm(bias, q, k.mT)
        return torch.softmax(scores, dim=-1) @ v


def _no_cache(spec: ModelSpec, device: torch.device) -> KVCache:
    return KVCache.allocate(
        num_layers=spec.text.num_layers,
        num_blocks=0,
        block_size=16,
        num_kv_heads=spec.text.num_kv_heads,
        head_dim=spec.text.head_dim,
        dtype=torch.float32,
        device=device,
    )


def _waves(grid: int, width: int) -> Tensor:
    """Positions to start from: sines and cosines of row and column, [1, 1 + grid², width]."""
    quarter = width // 4
    frequencies = torch.pi * grid / 32 * torch.exp(-torch.arange(quarter) / quarter * math.log(32))
    angles = torch.linspace(-1, 1, grid)[:, None] * frequencies
    parts = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = parts[:, None].expand(-1, grid, -1)
    columns = parts[None].expand(grid, -1, -1)
    waves = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return 0.5 * torch.cat([torch.zeros(1, width), waves])[None]


def _first_values(
    name: str, shape: torch.Size, spec: ModelSpec, generator: torch.Generator
) -> Tensor:
    """Activations near 1, small first steps of each layer, nearly equal logits."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in name or name == "mlp1.0.weight" or name.endswith((".ls1", ".ls2")):
        return torch.ones(shape)
    if name.endswith("position_embedding"):
        return _waves(spec.vision.grid, shape[-1])
    noise = torch.randn(shape, generator=generator)
    if name.endswith(("class_embedding", "embed_tokens.weight")):
        return 0.5 * noise
    values = noise / math.sqrt(math.prod(shape[1:]))
    if "lm_head" in name:
        return 0.1 * values
    if name.endswith(("attn.proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight")):
        vision = name.startswith("vision")
        values = values / math.sqrt(2 * (spec.vision if vision else spec.text).num_layers)
    return values
