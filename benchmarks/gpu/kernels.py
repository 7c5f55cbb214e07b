"""Kernels one by one: attention of each backend, and operations fused and not, beside the bytes
that they must move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.checks import BACKENDS
from benchmarks.gpu.paged import Step, attention, flops, read_bytes
from benchmarks.gpu.roofline import Ceilings
from benchmarks.gpu.sweeps import beside
from benchmarks.gpu.timing import timed_ms
from server.errors import StartupError
from server.kernels.backends import choose_backend, choose_ops
from server.kernels.ops import TORCH, Ops
from server.model.spec import ModelSpec, TextSpec

Rows = list[dict[str, Any]]

TIMED: list[Step] = [
    *((f"decode {rows} x {n}", [1] * rows, [n] * rows) for rows in (1, 8, 64) for n in (512, 2048)),
    *((f"prefill {count} in {n}", [count], [n]) for count, n in ((512, 512), (2048, 2048))),
    ("prefill 512 in 3584", [512], [3584]),
    ("4 x prefill 512", [512] * 4, [512] * 4),
]
TIMED_SMALL: list[Step] = [("decode 2 x 40", [1] * 2, [40] * 2), ("prefill 32", [32], [32])]

KEPT_BYTES = 128 * 10**6
"""More than any chip keeps of what it has read."""


def attention_times(text: TextSpec, device: torch.device, dtype: torch.dtype, at: Ceilings) -> Rows:
    """One layer's attention. On a GPU layers take turns, so many that their contexts together are
    larger than what the chip keeps: each call reads memory, as it does in a step."""
    found: Rows = []
    for name in BACKENDS:
        try:
            backend = choose_backend(name, device, dtype, text.head_dim)
        except StartupError as fault:
            found.append({"case": f"{name}: {fault}"})
            continue
        for step in TIMED if device.type == "cuda" else TIMED_SMALL:
            layer_bytes = read_bytes(text, step, dtype)
            layers = 1 + int(KEPT_BYTES / layer_bytes) if device.type == "cuda" else 1
            with torch.inference_mode():
                work = attention(backend, text, step, device, dtype, layers=layers)
                ms = timed_ms(work, device)
            read_s = layer_bytes / at.read_bytes_per_s
            compute_s = flops(text, step) / at.flops_per_s
            found.append(beside(f"{name}, {step[0]}", ms, max(read_s, compute_s)))
    return found


def ops_times(spec: ModelSpec, device: torch.device, dtype: torch.dtype, at: Ceilings) -> Rows:
    """Language model by rows of a step, vision by pictures."""
    fused, _ = choose_ops(device, torch.bfloat16)
    found: Rows = []
    for name, ops in {"torch": TORCH, "fused": fused}.items():
        for rows in (1, 64, 2048) if device.type == "cuda" else (2,):
            for case, work, moved in _language(ops, spec, rows, device, dtype):
                ms = timed_ms(work, device, 20)
                found.append(beside(f"{case} x {rows}, {name}", ms, moved / at.copy_bytes_per_s))
        for case, work, moved in _vision(ops, spec, device, dtype):
            ms = timed_ms(work, device, 20)
            found.append(beside(f"{case}, {name}", ms, moved / at.copy_bytes_per_s))
    return found


Case = tuple[str, Callable[[], object], float]
"""Name, work, and the bytes that it must move."""


def _language(
    ops: Ops, spec: ModelSpec, rows: int, device: torch.device, dtype: torch.dtype
) -> list[Case]:
    text = spec.text
    x, branch = torch.randn(2, rows, text.hidden_size, device=device).to(dtype)
    weight = torch.randn(text.hidden_size, device=device).to(dtype)
    gate_up = torch.randn(rows, 2 * text.intermediate_size, device=device).to(dtype)
    return [
        (
            "addition and norm",
            lambda: ops.add_rms_norm(x, branch, weight, 1e-5),
            4 * x.numel() * dtype.itemsize,
        ),
        (
            "activation",
            lambda: ops.silu_mul(gate_up),
            1.5 * gate_up.numel() * dtype.itemsize,
        ),
    ]


def _vision(ops: Ops, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> list[Case]:
    pictures = 8 if device.type == "cuda" else 1
    shape = (pictures, spec.vision.num_positions, 3 * spec.vision.hidden_size)
    q, k, x = torch.randn(shape, device=device).to(dtype).chunk(3, dim=-1)
    weight = torch.randn(spec.vision.hidden_size, device=device).to(dtype)
    x = x.contiguous()
    branch = torch.randn_like(x)

    def keys() -> None:
        squares = ops.square_sums(q, k)
        ops.divide_by_root(q, squares[0], len(weight), weight, 1e-6)
        ops.divide_by_root(k, squares[1], len(weight), weight, 1e-6)

    size_bytes = x.numel() * dtype.itemsize
    return [
        (f"norm of queries and keys, {pictures} pictures", keys, 6 * size_bytes),
        (
            f"scaled addition and norm, {pictures} pictures",
            lambda: ops.add_rms_norm(x, branch, weight, 1e-6, weight),
            4 * size_bytes,
        ),
    ]
