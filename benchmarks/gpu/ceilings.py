"""What the device reaches: a large copy and a large sum, a large product, and the products of the
model by rows.

The last tell where the library's kernels fall short of the floor and another choice for that number
of rows would pay.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.gpu.roofline import Ceilings
from benchmarks.gpu.timing import timed_ms
from server.model.spec import ModelSpec

Rows = list[dict[str, Any]]

ROW_COUNTS = (1, 8, 16, 32, 64, 128, 192, 256, 512, 2048)
ROW_COUNTS_SMALL = (1, 8)


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, small: bool) -> Ceilings:
    """`small` is for trying the script out."""
    size, side = (2**20, 256) if small else (2**32, 8192)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy_ms = timed_ms(partial(target.copy_, source), device)
    # Of wide numbers: a thread asks for a few at a time, and many bytes must be under way.
    sum_ms = timed_ms(source.view(torch.int64).sum, device)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    product_ms = timed_ms(partial(torch.matmul, a, b), device)
    copy_bytes_per_s = 2 * size / copy_ms * 1e3
    read_bytes_per_s = max(copy_bytes_per_s, size / sum_ms * 1e3)
    return Ceilings(copy_bytes_per_s, read_bytes_per_s, 2 * side**3 / product_ms * 1e3)


def products(spec: ModelSpec, device: torch.device, dtype: torch.dtype, at: Ceilings) -> Rows:
    """The language model's four products and the logits, each beside its floor. Weights rotate, so
    that none is found in a cache."""
    text = spec.text
    hidden, heads = text.hidden_size, text.num_heads * text.head_dim
    shapes = {
        "qkv": (hidden, heads + 2 * text.num_kv_heads * text.head_dim),
        "out": (heads, hidden),
        "gate_up": (hidden, 2 * text.intermediate_size),
        "down": (text.intermediate_size, hidden),
        "logits": (hidden, text.vocab_size),
    }
    found: Rows = []
    for name, (inputs, outputs) in shapes.items():
        weights = torch.randn(3, outputs, inputs, device=device).to(dtype)
        for rows in ROW_COUNTS if device.type == "cuda" else ROW_COUNTS_SMALL:
            x = torch.randn(rows, inputs, device=device).to(dtype)

            def multiply(x: torch.Tensor = x, weights: torch.Tensor = weights) -> None:
                for weight in weights:
                    torch.nn.functional.linear(x, weight)

            ms = timed_ms(multiply, device, 5) / len(weights)
            read_s = outputs * inputs * dtype.itemsize / at.read_bytes_per_s
            floor_s = max(read_s, 2 * rows * outputs * inputs / at.flops_per_s)
            found.append({"case": f"{name} x {rows}", "ms": ms, "floor_ms": floor_s * 1e3})
    return found
