"""What steps take on a CPU, without scheduler and HTTP: decode, prefill, pictures.

    python -m benchmarks.cpu_steps [--ways bfloat16:cpu bfloat16:torch float32:cpu] [--rounds 3]

A way is a type and an attention backend, and `:plain` where steps are not recorded. Each loads the
mid checkpoint of `benchmarks/peers`; rounds go through all ways in turn, and the least time of each
figure counts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from server.demo.random_checkpoint import MID, write_random_checkpoint
from server.distributed.groups import Groups
from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.backends import Backend, choose_backend, choose_ops
from server.model.checkpoint import held_bytes
from server.model.internvl import InternVLChat
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.runner.build import rows_dtype
from server.runner.loading import make_model
from server.settings import Settings

CHECKPOINT = Path(".cache/peers/mid")
DECODES = ((1, 200), (4, 200), (16, 200), (32, 200), (32, 600))
"""Requests and their contexts."""
PROMPTS = (128, 512)
PICTURES = (1, 4)
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    model: InternVLChat
    backend: Backend
    cache: KVCache
    layers: Callable[[Tensor, KVCache, AttentionBatch], Tensor]

    @staticmethod
    def load(name: str, spec: ModelSpec, quantization: str) -> Way:
        type_name, wanted, *plain = name.split(":")
        dtype: torch.dtype = getattr(torch, type_name)
        backend = choose_backend(wanted, CPU, dtype, spec.text.head_dim)
        model = make_model(
            Settings.model_validate({"quantization": quantization}),
            CHECKPOINT,
            spec,
            backend=backend,
            dtype=dtype,
            device=CPU,
            shard=ShardPlan.make(spec, 1).ranks[0],
            groups=Groups(),
            planned_bytes=1,
        )
        rows = rows_dtype(quantization, dtype, backend.hidden)
        model.use(choose_ops(CPU, backend.hidden, dtype, rows)[0])
        cache = KVCache.allocate(
            num_layers=spec.text.num_layers,
            num_blocks=sum(DECODES[-1]) * DECODES[-1][0] // backend.block_size,
            block_size=backend.block_size,
            num_kv_heads=spec.text.num_kv_heads,
            head_dim=spec.text.head_dim,
            dtype=dtype,
            device=CPU,
        )
        # Pages that nobody has written are one page of zeros, which never leaves the chip.
        cache.keys.normal_()
        cache.values.normal_()
        layers = model.forward
        if backend.repeat is not None and not plain:
            layers = backend.repeat(model.forward, spec.text.max_positions, patience=0)
        return Way(name, model, backend, cache, layers)

    def step(self, requests: int, count: int, context: int) -> None:
        """The last `count` tokens of as many contexts."""
        size = self.backend.block_size
        blocks = -(-context // size)
        tables = torch.zeros(requests, self.model.spec.text.max_positions // size, dtype=torch.long)
        tables[:, :blocks] = torch.arange(requests * blocks).view(requests, blocks)
        positions = torch.arange(context - count, context).repeat(requests)
        rows = torch.arange(requests).repeat_interleave(count)
        batch = self.backend.batch.build(
            self.cache,
            positions=positions,
            kv_indices=tables[rows, positions // size] * size + positions % size,
            query_lens=[count] * requests,
            context_lens=[context] * requests,
            block_tables=tables,
        )
        hidden = self.layers(self.model.embed(positions), self.cache, batch)
        self.model.logits(hidden[count - 1 :: count])

    def encode(self, pictures: int) -> None:
        size = self.model.spec.vision.image_size
        self.model.encode_images(torch.zeros(pictures, size, size, 3, dtype=torch.uint8))

    def figures(self) -> dict[str, Callable[[], None]]:
        works: dict[str, Callable[[], None]] = {}
        for requests, context in DECODES:
            works[f"{requests} decode at {context}"] = lambda r=requests, c=context: self.step(  # type: ignore[misc]
                r, 1, c
            )
        for count in PROMPTS:
            works[f"prefill of {count}"] = lambda n=count: self.step(1, n, n)  # type: ignore[misc]
        for count in PICTURES:
            works[f"{count} pictures"] = lambda n=count: self.encode(n)  # type: ignore[misc]
        return works


def main() -> None:
    parser = argparse.ArgumentParser(description="What steps take on a CPU, in milliseconds.")
    parser.add_argument("--ways", nargs="+", default=["bfloat16:cpu", "bfloat16:torch"])
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if not (CHECKPOINT / "config.json").exists():
        write_random_checkpoint(CHECKPOINT, shape=MID)
    spec = ModelSpec.load(CHECKPOINT)
    ways = [Way.load(name, spec, arguments.quantization) for name in arguments.ways]
    least: dict[tuple[str, str], float] = {}
    for _ in range(arguments.rounds):
        for way in ways:
            for figure, work in way.figures().items():
                with torch.inference_mode():
                    work()
                    began_s = time.perf_counter()
                    work()
                    taken_ms = 1e3 * (time.perf_counter() - began_s)
                least[figure, way.name] = min(taken_ms, least.get((figure, way.name), taken_ms))
    print(f"| ms | {' | '.join(arguments.ways)} |\n| --- |{' ---: |' * len(ways)}")
    for figure in ways[0].figures():
        print(f"| {figure} | {' | '.join(f'{least[figure, way.name]:.1f}' for way in ways)} |")
    print(f"| weights, MB | {' | '.join(f'{held_bytes(w.model) / 1e6:.0f}' for w in ways)} |")


if __name__ == "__main__":
    main()
