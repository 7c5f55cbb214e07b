"""Measures some of what a GPU has to show, and adds it to a file of results.

    python -m benchmarks.gpu.run PART... --out FOLDER [--attention NAME] [--ops torch] [--no-graphs]

Weights are random and made on the device at the full shape of InternVL-Chat-V1-2, so nothing is
downloaded. Every figure stands beside its floor, from ceilings measured in the same process.
`all.sh` runs every part in a process of its own, so that one that fails costs no other.
`--device cpu --shape FOLDER` tries the script out on a small model.
"""

from __future__ import annotations

import argparse
import json
import time
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
    results: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(chosen).items()}}
    begin = time.perf_counter()
    try:
        results |= measure(chosen)
    except Exception as error:
        results["fault"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        results["seconds"] = time.perf_counter() - begin
        store(chosen.out, results)
    for part, rows in results["parts"].items():
        show(part, rows)
    wrong = failed(results["parts"].get("checks", []))
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


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    device, on_cpu = torch.device(chosen.device), chosen.device == "cpu"
    dtype = torch.float32 if on_cpu else torch.bfloat16
    spec = ModelSpec.load(chosen.shape)
    ceilings = measure_ceilings(device, dtype, small=on_cpu)
    roofline = Roofline(spec, ceilings, dtype.itemsize, dtype.itemsize)
    backend = choose_backend(chosen.attention, device, dtype, spec.text.head_dim)
    found: dict[str, Any] = {
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "attention": f"{backend.name} ({backend.reason})",
        "ceilings": asdict(ceilings),
        "parts": {},
    }
    parts: dict[str, Rows] = found["parts"]
    if "checks" in chosen.parts:
        parts["checks"] = checks(spec, device)
    if "products" in chosen.parts:
        parts["products"] = products(spec, device, dtype, ceilings)
    if "attention" in chosen.parts:
        parts["attention"] = attention_times(spec.text, device, dtype, ceilings)
    if "ops" in chosen.parts:
        parts["ops"] = ops_times(spec, device, dtype, ceilings)
    wanted = [name for name in SWEEPS if name in chosen.parts]
    if not wanted:
        return found
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
            parts[name] = SWEEPS[name](engine, roofline, sizes)
        parts["start"] = [start(engine, device)]
    finally:
        engine.close()
    return found


def start(engine: Engine, device: torch.device) -> dict[str, Any]:
    """What graphs took, and the memory that is left after all of it."""
    row: dict[str, Any] = {"case": "start", "capture_s": engine.capture_s}
    if device.type == "cuda":
        row["free_gb"], row["total_gb"] = (size / 1e9 for size in torch.cuda.mem_get_info())
        row["largest_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def store(folder: Path, results: dict[str, Any]) -> None:
    """Adds to what earlier processes have found."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*runs, results], indent=2))


def show(part: str, rows: Rows) -> None:
    print(f"-- {part}")
    for row in rows:
        print(" | ".join(f"{name} {_text(value)}" for name, value in row.items()))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
