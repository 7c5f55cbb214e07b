"""How fast weights are read, beside what dd reads of the same files.

    python -m benchmarks.loading FOLDER [--gb 16] [--device cpu|cuda] [--quantization int8]

Writes a checkpoint of random bytes and about that size into FOLDER where none is, then reads it
with dd and loads it, each cold (the page cache dropped for its files) and warm. A cold figure is
the disk's, a warm one that of memory, threads and conversion.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from server.demo.layout import CheckpointShape, write_json_files

GB = 10**9
FILE_BYTES = 4 * GB

SHAPE = CheckpointShape(
    image_size=448,
    vision_hidden=1024,
    vision_layers=4,
    vision_heads=8,
    vision_mlp=4096,
    text_hidden=4096,
    text_layers=0,
    text_heads=32,
    text_kv_heads=8,
    head_dim=128,
    text_mlp=11008,
    vocab_size=32064,
)
"""Matrices as large as those of real models; the layers follow from the size asked for."""

LAYER_BYTES = 2 * SHAPE.text_hidden * (2 * 128 * (32 + 8) + 3 * SHAPE.text_mlp)


def write_checkpoint(folder: Path, size_bytes: int) -> None:
    """Random bytes in place of weights: zeros might be compressed away by a file system."""
    from dataclasses import replace  # noqa: PLC0415

    from server.model.checkpoint import checkpoint_tensors  # noqa: PLC0415 - loads torch
    from server.model.internvl import InternVLChat  # noqa: PLC0415
    from server.model.layers import META  # noqa: PLC0415
    from server.model.spec import parse_config  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    shape = replace(SHAPE, text_layers=max(1, round(size_bytes / LAYER_BYTES)))
    spec = parse_config(write_json_files(folder, shape))
    sizes = {
        name: list(tensor.shape)
        for name, tensor in checkpoint_tensors(InternVLChat(spec, META)).items()
    }
    files: list[list[str]] = [[]]
    written = 0
    for name, size in sizes.items():
        if written + 2 * math.prod(size) > FILE_BYTES:
            files.append([])
            written = 0
        files[-1].append(name)
        written += 2 * math.prod(size)
    weight_map: dict[str, str] = {}
    for index, names in enumerate(files, start=1):
        file = f"model-{index:05}-of-{len(files):05}.safetensors"
        _write_file(folder / file, {name: sizes[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def _write_file(path: Path, shapes: dict[str, list[int]]) -> None:
    offset, entries = 0, {}
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    noise = os.urandom(2**20)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, offset, len(noise)):
            file.write(noise[: offset - start])
        file.flush()
        os.fsync(file.fileno())


def forget(files: list[Path]) -> None:
    """Drops the files from the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def dd(files: list[Path]) -> None:
    for path in files:
        command = ["dd", f"if={path}", "of=/dev/null", "bs=16M"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def load(folder: Path, device: str, quantization: str) -> None:
    """In a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "benchmarks.loading", str(folder), "--load"]
    subprocess.run([*command, "--device", device, "--quantization", quantization], check=True)


def load_here(folder: Path, device: str, quantization: str) -> None:
    import torch  # noqa: PLC0415 - only the measured process needs it

    from server.model.checkpoint import held_bytes  # noqa: PLC0415
    from server.model.quantization import packing  # noqa: PLC0415
    from server.model.spec import ModelSpec  # noqa: PLC0415
    from server.model.weights import load_model  # noqa: PLC0415
    from server.settings import Settings  # noqa: PLC0415

    place = torch.device(device)
    torch.empty(1, device=place)  # a GPU's context takes time and memory that no loading needs
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    chosen = Settings.model_validate({"quantization": quantization}).quantization
    spec = ModelSpec.load(folder)
    model = load_model(folder, spec, torch.bfloat16, place, pack=packing(chosen, place))
    if place.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    peak = (after.ru_maxrss - before.ru_maxrss) * 1024
    print(
        f"load: {_rate(size, seconds)}, {_cpu_s(after) - _cpu_s(before):.1f} s of CPU, "
        f"holds {held_bytes(model) / GB:.2f} GB, host peak {peak / GB:.2f} GB"
    )


def _cpu_s(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _rate(size_bytes: int, seconds: float) -> str:
    return f"{seconds:.2f} s, {size_bytes / seconds / GB:.2f} GB/s"


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast weights are read.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=16)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.load:
        load_here(folder, arguments.device, arguments.quantization)
        return
    if not (folder / "config.json").exists():
        write_checkpoint(folder, int(arguments.gb * GB))
    files = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    print(f"{size / GB:.2f} GB in {len(files)} files")
    for state in ("cold", "warm"):
        if state == "cold":
            forget(files)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = timed(lambda: dd(files))
        cpu_s = _cpu_s(resource.getrusage(resource.RUSAGE_CHILDREN)) - _cpu_s(before)
        print(f"{state}\ndd: {_rate(size, seconds)}, {cpu_s:.1f} s of CPU", flush=True)
        if state == "cold":
            forget(files)
        load(folder, arguments.device, arguments.quantization)


if __name__ == "__main__":
    main()
