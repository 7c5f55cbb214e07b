"""Compiles every Triton kernel for a GPU that need not be there, as a program of its own.

In a process with the interpreter there is nothing to compile. Prints one line for each kernel:
name, registers and bytes spilled to memory by a thread.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from server.kernels.triton import decode, norms, ops, prefill

HOPPER = GPUTarget("cuda", 90, 32)
LARGE: dict[str, int] = {"HEAD_DIM": 128, "SIZE": 64, "KEYS": 64}
I32, I64, BF16, F32 = "i32", "*i64", "*bf16", "*fp32"

KERNELS: list[tuple[Any, dict[str, str], dict[str, Any], int]] = [
    (
        decode._attend_split,
        dict.fromkeys(("q", "keys", "values"), BF16)
        | dict.fromkeys(("tables", "positions", "tokens"), I64)
        | {"parts": F32, "weights": F32, "scale": "fp32"},
        LARGE | {"SPLIT": 256, "QUERIES": 16},
        4,
    ),
    (
        decode._join_splits,
        {"parts": F32, "weights": F32, "positions": I64, "tokens": I64, "out": BF16},
        {"SPLIT": 256, "HEAD_DIM": 128},
        1,
    ),
    (
        prefill._attend_queries,
        dict.fromkeys(("q", "keys", "values", "out"), BF16)
        | {"tables": I64, "tiles": "*i32", "scale": "fp32"},
        LARGE | {"QUERIES": prefill.QUERIES_PER_TILE},
        8,
    ),
    (
        norms._add_rms_norm,
        dict.fromkeys(("x", "branch", "scale", "weight", "total", "normed"), BF16)
        | {"eps": "fp32"},
        {"ADD": True, "SCALE": True, "NORM": True, "WIDTH": 8192},
        8,
    ),
    (norms._square_sums, {"x": BF16, "y": BF16, "sums": F32}, {"WIDTH": 4096}, 8),
    (
        norms._divide_by_root,
        {"x": BF16, "sums": F32, "weight": BF16, "out": BF16, "eps": "fp32"},
        {"WIDTH": 4096},
        8,
    ),
    (
        ops._rotate_and_write,
        dict.fromkeys(("qkv", "cos", "sin", "q", "keys", "values"), BF16) | {"kv_indices": I64},
        {"HEADS": ops.HEADS_PER_PROGRAM, "HALF": 64},
        2,
    ),
    (ops._silu_mul, {"gate_up": BF16, "out": BF16}, {"SIZE": ops.ELEMENTS_PER_PROGRAM}, 4),
]


def main() -> None:
    for kernel, kinds, constants, warps in KERNELS:
        signature = {
            name: "constexpr" if name in constants else kinds.get(name, I32)
            for name in kernel.arg_names
        }
        source = ASTSource(kernel, signature, constants, aligned(signature))
        binary = triton.compile(source, target=HOPPER, options={"num_warps": warps})
        print(kernel.__name__, *resources(binary.asm["cubin"]))


def aligned(signature: dict[str, str]) -> dict[tuple[int, ...], list[tuple[str, int]]]:
    """Pointers and strides are multiples of 16, as the launcher finds out for itself."""
    return {
        (index,): [("tt.divisibility", 16)]
        for index, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name.endswith(("stride", "width"))
    }


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    main()
