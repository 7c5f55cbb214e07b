"""Muon for the matrices inside the transformers, Adam for everything else.

Muon steps along the nearest orthogonal matrix of the momentum (Jordan et al., 2024). On models as
small as this one it needs about half of Adam's steps, for a few percent more arithmetic. Weights
and gradients are given by name, and all state is tensors by name, so that a run can be saved.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MUON_LR, MUON_MOMENTUM = 1.4e-2, 0.95
MATRIX_DECAY = 0.02
"""Part of a matrix that fades at each step of learning rate 1."""
ADAM_LR, ADAM_BETAS, ADAM_EPS = 2e-3, (0.9, 0.98), 1e-8

NOT_MATRICES = (
    "embedding",
    "embed_tokens",
    "lm_head",
    "norm",
    "patch_head",
    "mention_head",
    "mlp1.0",
)


class Optimiser:
    """Steps `weights` along `gradients`, both by name, in place."""

    def __init__(
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, mixed: bool = False
    ) -> None:
        """`mixed` makes matrices orthogonal in bfloat16; which way a step goes bears it."""
        self._iterated = torch.bfloat16 if mixed else torch.float32
        self._weights = _without_joints(weights)
        self._gradients = _without_joints(gradients)
        self._matrices: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        self._others: list[str] = []
        self._state: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            self._state[f"momentum.{name}"] = torch.zeros_like(weight)
            if weight.dim() == 2 and not any(part in name for part in NOT_MATRICES):
                self._matrices[tuple(weight.shape)].append(name)
            else:
                self._others.append(name)
                self._state[f"square.{name}"] = torch.zeros_like(weight)

    @property
    def state(self) -> Mapping[str, Tensor]:
        return self._state

    @torch.no_grad()
    def step(self, number: int, rate: float, resting: tuple[str, ...] = ()) -> None:
        """Step `number`, from 1, at `rate` of the full learning rate.

        Args:
            resting: how the names begin of weights that stay as they are.
        """
        for names in self._matrices.values():
            if moving := [name for name in names if not name.startswith(resting)]:
                self._step_matrices(moving, rate)
        for name in self._others:
            if not name.startswith(resting):
                self._step_other(name, number, rate)

    def _step_matrices(self, names: list[str], rate: float) -> None:
        """Matrices of one shape together."""
        directions = []
        for name in names:
            gradient, momentum = self._gradients[name], self._state[f"momentum.{name}"]
            momentum.lerp_(gradient, 1 - MUON_MOMENTUM)
            directions.append(gradient.lerp(momentum, MUON_MOMENTUM))
        rows, columns = directions[0].shape
        scale = math.sqrt(max(1.0, rows / columns))
        stacked = orthogonal(torch.stack(directions).to(self._iterated))
        for name, direction in zip(names, stacked, strict=True):
            weight = self._weights[name]
            weight.mul_(1 - rate * MUON_LR * MATRIX_DECAY)
            weight.add_(direction, alpha=-rate * MUON_LR * scale)

    def _step_other(self, name: str, number: int, rate: float) -> None:
        gradient = self._gradients[name]
        momentum, square = self._state[f"momentum.{name}"], self._state[f"square.{name}"]
        momentum.lerp_(gradient, 1 - ADAM_BETAS[0])
        square.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
        corrected = (square / (1 - ADAM_BETAS[1] ** number)).sqrt().add_(ADAM_EPS)
        step = rate * ADAM_LR / (1 - ADAM_BETAS[0] ** number)
        self._weights[name].addcdiv_(momentum, corrected, value=-step)


def orthogonal(matrices: Tensor) -> Tensor:
    """About the orthogonal factor of each of [N, rows, columns], by five Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _without_joints(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with query, key and value of the vision tower, which are one, as three."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("attn.qkv.weight"):
            parts |= {f"{name}.{i}": part for i, part in enumerate(tensor.chunk(3))}
        else:
            parts[name] = tensor
    return parts
