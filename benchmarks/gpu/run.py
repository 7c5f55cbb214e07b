"""Everything that is measured on one GPU, in one call: checks first, then ceilings and the engine.

    python -m benchmarks.gpu.run --out FOLDER [--only checks ceilings decode prefill vision]

Weights are random and made on the device at the full shape of InternVL-Chat-V1-2, so nothing is
downloaded. Every engine figure stands beside its floor: bytes over the copy bandwidth or operations
over the matrix rate that were measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from array import array
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from server.engine.plan import Install, Row, RunnerLimits, StepPlan
from server.kernels.attention import KVCache
from server.kernels.backends import Backend, choose_backend
from server.messages import SamplingParams
from server.model.dummy import dummy_model
from server.model.internvl import InternVLChat
from server.model.shards import ShardPlan, text_weights
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.graphs import CudaCapture
from server.runner.noise import gumbel_noise, noise_key
from server.runner.runner import LocalRunner

SHAPE = Path(__file__).parent / "internvl-chat-v1-2"
GOLDEN = Path(__file__).parents[2] / "tests/golden/tiny-a"
CUDA = torch.device("cuda")
CONTEXT = 4096

Rows = list[dict[str, Any]]


def timed_ms(work: Callable[[], object], repeats: int = 10, warm_up: int = 3) -> float:
    """Median of device time."""
    for _ in range(warm_up):
        work()
    times: list[float] = []
    for _ in range(repeats):
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    difference = (value.double() - reference.double()).norm() / reference.double().norm()
    return float(difference)


def checks() -> Rows:
    """Golden vision and language numbers, attention and noise; each with its bound."""
    spec = ModelSpec.load(GOLDEN / "checkpoint")
    golden = load_file(GOLDEN / "cases/images.safetensors")
    rows: Rows = []
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        model = load_model(GOLDEN / "checkpoint", spec, dtype, CUDA)
        pixels = golden["rgb_square.resized_u8"][None].to(CUDA)
        with torch.inference_mode():
            embeddings = model.encode_images(pixels)[0].float().cpu()
        error = relative_error(embeddings, golden["rgb_square.vit_embeds"])
        rows.append({"check": f"picture embeddings, {dtype}", "error": error, "bound": bound})
        if dtype == torch.float32:
            rows.append(_check_tokens(model))
    keys = [noise_key(seed, 7) for seed in range(8)]
    ids = torch.arange(64007, dtype=torch.int32)
    on_gpu = gumbel_noise(keys, ids.to(CUDA)).cpu()
    error = float((on_gpu - gumbel_noise(keys, ids)).abs().max())
    rows.append({"check": "sampling noise against the CPU's", "error": error, "bound": 1e-4})
    rows += _check_attention()
    return rows


def _check_tokens(model: InternVLChat) -> dict[str, Any]:
    """Greedy tokens of a golden text through the runner: the share that differs. In bfloat16 the
    authors' own code leaves its float32 path, so that is no check."""
    case = json.loads((GOLDEN / "cases/text_en.json").read_text())
    runner = make_runner(model, choose_backend("torch", CUDA, model.dtype), blocks=64)
    prompt: list[int] = case["token_ids"]
    first = StepPlan(0, [install(0, prompt, 0, range(6))], rows=[Row(0, len(prompt))])
    pending = [runner.launch(first)]
    pending += [runner.launch(StepPlan(step, rows=[Row(0, 1)])) for step in range(1, 32)]
    tokens = [token for step in pending for token in step.result().token_ids]
    runner.close()
    wrong = sum(a != b for a, b in zip(tokens, case["generated_ids"], strict=True)) / 32
    return {"check": "greedy tokens, torch.float32", "error": wrong, "bound": 0.0}


def _check_attention() -> Rows:
    """flash-attn against torch in float32 at the shapes of the 40B, on fresh random numbers."""
    flash = choose_backend("auto", CUDA, torch.bfloat16)
    if flash.name != "flash_attn":
        return [{"check": f"flash-attn: {flash.reason}", "error": None, "bound": None}]
    rows: Rows = []
    for name, queries, contexts in (
        ("decode", [1] * 8, [1, 255, 256, 257, 1000, 4096, 77, 512]),
        ("mixed", [64, 1, 300], [64, 900, 1500]),
    ):
        outputs = [
            _attend(backend, dtype, queries, contexts)
            for backend, dtype in (
                (flash, torch.bfloat16),
                (choose_backend("torch", CUDA, torch.float32), torch.float32),
            )
        ]
        error = relative_error(*outputs)
        rows.append({"check": f"flash-attn, {name}", "error": error, "bound": 1e-2})
    return rows


def _attend(
    backend: Backend, dtype: torch.dtype, query_lens: list[int], context_lens: list[int]
) -> torch.Tensor:
    """Attention of 56 query heads over 8 KV heads on numbers that are equal for all backends."""
    generator = torch.Generator().manual_seed(3)
    size, tokens = 256, sum(query_lens)
    blocks = torch.randperm(16 * len(query_lens), generator=generator).view(len(query_lens), 16)
    cache = KVCache.allocate(
        num_layers=1,
        num_blocks=blocks.numel(),
        block_size=size,
        num_kv_heads=8,
        head_dim=128,
        dtype=dtype,
        device=CUDA,
    )
    for stored in (cache.keys, cache.values):
        stored.copy_(torch.randn(stored.shape, generator=generator).bfloat16())
    q = torch.randn(tokens, 56, 128, generator=generator).bfloat16().to(CUDA, dtype)
    k, v = torch.randn(2, tokens, 8, 128, generator=generator).bfloat16().to(CUDA, dtype)
    positions = [
        torch.arange(end - count, end) for count, end in zip(query_lens, context_lens, strict=True)
    ]
    places = [
        table[at // size] * size + at % size for table, at in zip(blocks, positions, strict=True)
    ]
    batch = backend.batch.build(
        cache,
        positions=torch.cat(positions).to(CUDA),
        kv_indices=torch.cat(places).to(CUDA),
        query_lens=query_lens,
        context_lens=context_lens,
        block_tables=blocks.to(CUDA),
    )
    return batch.write_and_attend(0, q, k, v, cache).float().cpu()


def ceilings() -> Rows:
    """What the card reaches: a large copy, and a large product on random numbers."""
    source = torch.empty(2**32, dtype=torch.uint8, device=CUDA).random_()
    target = torch.empty_like(source)
    copy_ms = timed_ms(lambda: target.copy_(source))
    a, b = torch.randn(2, 8192, 8192, device=CUDA).bfloat16()
    product_ms = timed_ms(lambda: a @ b)
    return [
        {"ceiling": "copy, TB/s", "value": 2 * 2**32 / copy_ms / 1e9},
        {"ceiling": "bfloat16 product, TFLOP/s", "value": 2 * 8192**3 / product_ms / 1e9},
    ]


def make_runner(model: InternVLChat, backend: Backend, blocks: int) -> LocalRunner:
    spec = model.spec
    limits = RunnerLimits(
        slots=128,
        kv_blocks=blocks,
        kv_block_size=backend.block_size,
        image_slots=16,
        image_cost_tokens=spec.image_cost_tokens,
        step_token_budget=CONTEXT,
        max_model_len=CONTEXT,
        vocab_size=spec.text.vocab_size,
        tokens_per_image=spec.tokens_per_image,
        image_bytes=3 * spec.vision.image_size**2,
    )
    cache = KVCache.allocate(
        num_layers=spec.text.num_layers,
        num_blocks=blocks + 1,
        block_size=backend.block_size,
        num_kv_heads=spec.text.num_kv_heads,
        head_dim=spec.text.head_dim,
        dtype=model.dtype,
        device=CUDA,
    )
    runner = LocalRunner(model, cache, limits, batch=backend.batch)
    if backend.decode is not None:
        runner.capture_graphs(backend.decode, CudaCapture())
    return runner


def install(slot: int, tokens: list[int], computed: int, blocks: range) -> Install:
    return Install(
        slot=slot,
        tokens=array("i", tokens).tobytes(),
        prompt_length=len(tokens),
        computed=computed,
        blocks=list(blocks),
        sampling=SamplingParams(temperature=0.0),
    )


class Engine:
    """Plans for a runner at the full shape, numbered on."""

    def __init__(self, attention: str) -> None:
        spec = ModelSpec.load(SHAPE)
        self.model = dummy_model(spec, torch.bfloat16, CUDA)
        self.backend = choose_backend(attention, CUDA, torch.bfloat16)
        token_bytes = 2 * spec.text.num_layers * spec.text.num_kv_heads * spec.text.head_dim * 2
        free = torch.cuda.mem_get_info()[0] * 0.8
        self.blocks = int(free) // (token_bytes * self.backend.block_size)
        self.runner = make_runner(self.model, self.backend, self.blocks)
        self._step = 0

    def plan(self, **fields: Any) -> StepPlan:
        self._step += 1
        return StepPlan(self._step - 1, **fields)

    def decode_ms(self, batch: int, context: int, steps: int = 24) -> float | None:
        """A steady decode step with two in flight; None when the cache is too small."""
        each = -(-(context + steps + 2) // self.backend.block_size)
        if batch * each > self.blocks:
            return None
        installs = [
            install(slot, [1] * context, context - 1, range(slot * each, (slot + 1) * each))
            for slot in range(batch)
        ]
        rows = [Row(slot, 1) for slot in range(batch)]
        pending = [self.runner.launch(self.plan(installs=installs, rows=rows))]
        times = []
        for _ in range(steps):
            pending.append(self.runner.launch(self.plan()))
            pending.pop(0).result()
            times.append(time.perf_counter())
        pending.pop().result()
        return statistics.median(after - before for before, after in pairwise(times[4:])) * 1e3

    def prefill_ms(self, tokens: int) -> float:
        blocks = range(-(-tokens // self.backend.block_size))
        times = []
        for _ in range(4):
            plan = self.plan(installs=[install(0, [1] * tokens, 0, blocks)], rows=[Row(0, tokens)])
            begin = time.perf_counter()
            self.runner.launch(plan).result()
            times.append(time.perf_counter() - begin)
        return min(times[1:]) * 1e3


def measure(attention: str, only: set[str], copy_tb_s: float, product_tflop_s: float) -> Rows:
    """Decode, prefill and vision beside their floors."""
    engine = Engine(attention)
    spec = engine.model.spec
    weights = text_weights(spec.text, ShardPlan.make(spec, 1).ranks[0].text)
    layers = weights - 2 * spec.text.vocab_size * spec.text.hidden_size
    read_bytes = 2 * (weights - spec.text.vocab_size * spec.text.hidden_size)
    rows: Rows = []
    for batch in (1, 4, 16, 64) if "decode" in only else ():
        for context in (512, 1024, 2048):
            ms = engine.decode_ms(batch, context)
            floor = (read_bytes + batch * context * 245_760) / copy_tb_s / 1e9
            rows.append(_row(engine, f"decode {batch} x {context}", ms, floor))
    for tokens in (64, 256, 512, 2048) if "prefill" in only else ():
        floor = max(2 * layers * tokens / product_tflop_s / 1e9, read_bytes / copy_tb_s / 1e9)
        rows.append(_row(engine, f"prefill {tokens}", engine.prefill_ms(tokens), floor))
    for pictures in (1, 2, 4, 8) if "vision" in only else ():
        pixels = torch.randint(0, 256, (pictures, 448, 448, 3), device=CUDA).to(torch.uint8)
        with torch.inference_mode():
            ms = timed_ms(partial(engine.model.encode_images, pixels), 5)
        floor = pictures * 12.0 / product_tflop_s * 1e3
        rows.append(_row(engine, f"vision {pictures}", ms, floor))
    engine.runner.close()
    return rows


def _row(engine: Engine, name: str, ms: float | None, floor: float) -> dict[str, Any]:
    share = None if ms is None else floor / ms
    return {
        "case": name,
        "attention": engine.backend.name,
        "ms": ms,
        "floor_ms": floor,
        "share_of_floor": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks and measurements on one GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json")
    parts = ["checks", "ceilings", "decode", "prefill", "vision"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--attention", nargs="+", default=["auto"])
    arguments = parser.parse_args()
    only = set(arguments.only)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "checks": checks() if "checks" in only else [],
        "ceilings": ceilings(),
        "engine": [],
    }
    copy_tb_s, product_tflop_s = (row["value"] for row in results["ceilings"])
    if only & {"decode", "prefill", "vision"}:
        for attention in arguments.attention:
            results["engine"] += measure(attention, only, copy_tb_s, product_tflop_s)
            torch.cuda.empty_cache()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2))
    for part in ("checks", "ceilings", "engine"):
        for row in results[part]:
            print(" | ".join(_text(value) for value in row.values()))
    wrong = [
        r for r in results["checks"] if r["error"] is not None and not r["error"] <= r["bound"]
    ]
    raise SystemExit(f"wrong: {wrong}" if wrong else 0)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
