"""Whether what is about to be timed is right; each number beside its bound.

Golden pictures and tokens of the authors' code, every attention backend that works here and every
fused operation against plain torch in float32 on fresh random numbers, tokens with and without
graphs, noise equal to the CPU's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.engine import Repeats, install, make_runner
from benchmarks.gpu.paged import CHECKED, attention
from benchmarks.gpu.timing import relative_error
from server.engine.plan import Row, StepPlan
from server.errors import StartupError
from server.kernels.backends import Backend, choose_backend, choose_ops
from server.kernels.ops import TORCH, Ops
from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.graphs import CudaCapture
from server.runner.noise import gumbel_noise, noise_key

GOLDEN = Path(__file__).parents[2] / "tests/golden/tiny-a"
BACKENDS = ("fa3", "flash_attn", "triton", "torch")

Rows = list[dict[str, Any]]


def checks(spec: ModelSpec, device: torch.device) -> Rows:
    """All of them; one that cannot run says why in place of its error."""
    rows: Rows = []
    for check in (_golden(device), _attention(spec, device), _ops(spec, device), _noise(device)):
        rows.extend(check)
    return rows


def failed(rows: Rows) -> Rows:
    """NaN is wrong as well."""
    return [row for row in rows if row["error"] is not None and not row["error"] <= row["bound"]]


def _row(name: str, error: float | None, bound: float | None) -> dict[str, Any]:
    return {"case": name, "error": error, "bound": bound}


def _golden(device: torch.device) -> Iterator[dict[str, Any]]:
    spec = ModelSpec.load(GOLDEN / "checkpoint")
    golden = load_file(GOLDEN / "cases/images.safetensors")
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        model = load_model(GOLDEN / "checkpoint", spec, dtype, device)
        for ops, name in dict([(TORCH, "torch"), choose_ops(device, dtype)]).items():
            model.use(ops)
            pixels = golden["rgb_square.resized_u8"][None].to(device)
            with torch.inference_mode():
                embeddings = model.encode_images(pixels)[0].float().cpu()
            error = relative_error(embeddings, golden["rgb_square.vit_embeds"])
            yield _row(f"picture embeddings, {dtype}, {name}", error, bound)
            if dtype == torch.float32:
                yield from _tokens(model, device, name)


def _tokens(model: InternVLChat, device: torch.device, ops: str) -> Iterator[dict[str, Any]]:
    """Greedy tokens of a golden text: the share that differs. In bfloat16 the authors' own code
    leaves its float32 path, so that is no check."""
    for name in ("triton", "torch"):
        try:
            backend = choose_backend(name, device, torch.float32, model.spec.text.head_dim)
        except StartupError:
            continue
        for graphs in (False, True) if backend.decode else (False,):
            wrong = _wrong_tokens(model, backend, graphs=graphs)
            kind = f"{name}, {ops}, {'graphs' if graphs else 'no graphs'}"
            yield _row(f"greedy tokens, torch.float32, {kind}", wrong, 0.0)


def _wrong_tokens(model: InternVLChat, backend: Backend, *, graphs: bool) -> float:
    case = json.loads((GOLDEN / "cases/text_en.json").read_text())
    runner = make_runner(model, backend, blocks=64)
    if graphs and backend.decode is not None:
        on_gpu = model.language.embed_tokens.device.type == "cuda"
        runner.capture_graphs(backend.decode, CudaCapture() if on_gpu else Repeats())
    prompt: list[int] = case["token_ids"]
    blocks = range(-(-(len(prompt) + 32) // backend.block_size))
    first = StepPlan(0, installs=[install(0, prompt, 0, blocks)], rows=[Row(0, len(prompt))])
    pending = [runner.launch(first)]
    pending += [runner.launch(StepPlan(step, rows=[Row(0, 1)])) for step in range(1, 32)]
    tokens = [token for step in pending for token in step.result().token_ids]
    runner.close()
    expected: list[int] = case["generated_ids"]
    return sum(a != b for a, b in zip(tokens, expected, strict=True)) / len(expected)


def _attention(spec: ModelSpec, device: torch.device) -> Iterator[dict[str, Any]]:
    dtype = torch.bfloat16
    reference = choose_backend("torch", device, torch.float32)
    for step in CHECKED:
        exact = attention(reference, spec.text, step, device, torch.float32)()
        for name in BACKENDS:
            try:
                backend = choose_backend(name, device, dtype, spec.text.head_dim)
            except StartupError as fault:
                yield _row(f"{name}: {fault}", None, None)
                continue
            error = relative_error(attention(backend, spec.text, step, device, dtype)(), exact)
            yield _row(f"attention, {name}, {step[0]}", error, 1e-2)


def _ops(spec: ModelSpec, device: torch.device) -> Iterator[dict[str, Any]]:
    """Fused operations on numbers of both types against the reference in float32."""
    ops, reason = choose_ops(device, torch.bfloat16)
    if ops is TORCH:
        yield _row(f"fused operations: {reason}", None, None)
        return
    for dtype, bound in ((torch.float32, 1e-3), (torch.bfloat16, 1e-2)):
        for name, fused, exact in _results(ops, spec, device, dtype):
            yield _row(f"{name}, fused, {dtype}", relative_error(fused, exact), bound)


def _results(
    ops: Ops, spec: ModelSpec, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    text, vision = spec.text, spec.vision
    x, branch, weight = torch.randn(3, 37, text.hidden_size, device=device).to(dtype)
    fused = ops.add_rms_norm(x, branch, weight[0], 1e-5)
    exact = TORCH.add_rms_norm(x.float(), branch.float(), weight[0].float(), 1e-5)
    yield "addition", fused[0], exact[0]
    yield "norm", fused[1], exact[1]
    gate_up = torch.randn(37, 2 * text.intermediate_size, device=device).to(dtype)
    yield "activation", ops.silu_mul(gate_up), TORCH.silu_mul(gate_up.float())
    qkv = torch.randn(2, 50, 3 * vision.hidden_size, device=device).to(dtype)
    q, k, _ = qkv.chunk(3, dim=-1)
    scale = torch.randn(vision.hidden_size, device=device).to(dtype)
    squares = ops.square_sums(q, k)
    normed = ops.divide_by_root(k, squares[1], vision.hidden_size, scale, 1e-6)
    yield "norm of keys", normed, TORCH.rms_norm(k.float(), scale.float(), 1e-6)


def _noise(device: torch.device) -> Iterator[dict[str, Any]]:
    keys = [noise_key(seed, 7) for seed in range(8)]
    ids = torch.arange(64007, dtype=torch.int32)
    on_device = gumbel_noise(keys, ids.to(device)).cpu()
    error = float((on_device - gumbel_noise(keys, ids)).abs().max())
    yield _row("sampling noise against the CPU's", error, 1e-4)
