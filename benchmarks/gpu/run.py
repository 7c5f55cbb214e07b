"""Measures some of what a GPU has to show, and adds it to a file of results.

    python -m benchmarks.gpu.run PART... --out FOLDER [--attention NAME] [--ops torch] [--no-graphs]

Weights are random and made on the device at the full shape of InternVL-Chat-V1-2, so nothing is
downloaded. Every figure stands beside its floor, from ceilings measured in the same process.
Each part is stored once it is measured, and `all.sh` runs several processes, so that a part that
fails costs few others.
`--device cpu --shape FOLDER` tries the script out on a small model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.ceilings import measure_ceilings, products
from benchmarks.gpu.checks import checks, failed
from benchmarks.gpu.engine import Engine
from benchmarks.gpu.kernels import attention_times, ops_times
from benchmarks.gpu.roofline import Roofline
from benchmarks.gpu.sweeps import FULL, SHORT, SWEEPS, TINY, Rows
from benchmarks.gpu.timing import free_memory
from server.kernels.backends import choose_backend, choose_ops
from server.kernels.ops import TORCH
from server.model.dummy import dummy_model
from server.model.spec import ModelSpec

SHAPE = Path(__file__).parent / "internvl-chat-v1-2"
KERNELS = ("checks", "products", "attention", "ops")


def main(arguments: list[str] | None = None) -> None:
    chosen = build_parser().parse_args(arguments)
    parts: dict[str, Rows] = {}
    given = {name: str(value) for name, value in vars(chosen).items()}
    results: dict[str, Any] = {"arguments": given, "parts": parts}
    earlier = stored(chosen.out)
    begin = time.perf_counter()
    try:
        for part, rows in measure(chosen, results):
            parts[part] = rows
            store(chosen.out, [*earlier, results])
            show(part, rows)
    except (Exception, KeyboardInterrupt) as error:
        results["fault"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        results["seconds"] = time.perf_counter() - begin
        store(chosen.out, [*earlier, results])
    wrong = failed(parts.get("checks", []))
    raise SystemExit(f"wrong: {wrong}" if wrong else 0)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Checks and measurements on one GPU.")
    parser.add_argument("parts", nargs="+", choices=[*KERNELS, *SWEEPS], metavar="PART")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", type=Path, default=SHAPE, help="folder with a config.json")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--ops", choices=["fused", "torch"], default="fused")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer sizes")
    return parser


def measure(chosen: argparse.Namespace, results: dict[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Each part once it is measured; what it is measured on goes into `results`."""
    device, on_cpu = torch.device(chosen.device), chosen.device == "cpu"
    dtype = torch.float32 if on_cpu else torch.bfloat16
    spec = ModelSpec.load(chosen.shape)
    ceilings = measure_ceilings(device, dtype, small=on_cpu)
    roofline = Roofline(spec, ceilings, dtype.itemsize, dtype.itemsize)
    backend = choose_backend(chosen.attention, device, dtype, spec.text.head_dim)
    results |= {
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "attention": f"{backend.name} ({backend.reason})",
        "ceilings": asdict(ceilings),
    }
    if "checks" in chosen.parts:
        yield "checks", checks(spec, device)
    if "products" in chosen.parts:
        yield "products", products(spec, device, dtype, ceilings)
    if "attention" in chosen.parts:
        yield "attention", attention_times(spec.text, device, dtype, ceilings)
    if "ops" in chosen.parts:
        yield "ops", ops_times(spec, device, dtype, ceilings)
    wanted = [name for name in SWEEPS if name in chosen.parts]
    if not wanted:
        return
    model = dummy_model(spec, dtype, device)
    free_memory(device)
    blocks = 64
    if not on_cpu:
        block_bytes = int(roofline.kv_token_bytes) * backend.block_size
        blocks = int(torch.cuda.mem_get_info()[0] * 0.8) // block_bytes
    ops = TORCH if chosen.ops == "torch" else choose_ops(device, torch.bfloat16)[0]
    engine = Engine(model, backend, ops, blocks=blocks, graphs=not chosen.no_graphs)
    sizes = TINY if on_cpu else SHORT if chosen.short else FULL
    try:
        for name in wanted:
            yield name, SWEEPS[name](engine, roofline, sizes)
        yield "start", [start(engine, device)]
    finally:
        engine.close()


def start(engine: Engine, device: torch.device) -> dict[str, Any]:
    """What graphs took, and the memory that is left after all of it."""
    row: dict[str, Any] = {"case": "start", "capture_s": engine.capture_s}
    if device.type == "cuda":
        row["free_gb"], row["total_gb"] = (size / 1e9 for size in torch.cuda.mem_get_info())
        row["largest_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def stored(folder: Path) -> list[dict[str, Any]]:
    """What earlier processes have found."""
    path = folder / "results.json"
    runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return runs


def store(folder: Path, runs: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(runs, indent=2))


def show(part: str, rows: Rows) -> None:
    lines = (" | ".join(f"{name} {_text(value)}" for name, value in row.items()) for row in rows)
    print(f"-- {part}", *lines, sep="\n", flush=True)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
