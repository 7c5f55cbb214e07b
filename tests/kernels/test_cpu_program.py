"""Kernels recorded once and repeated."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.cpu.attention import BLOCK_SIZE, CpuBatch
from server.kernels.cpu.ops import CpuOps
from server.kernels.cpu.products import in_panels, multiply
from server.kernels.cpu.program import Memory, Program, Unrepeatable
from server.kernels.cpu.repeat import MOST_ROWS, RepeatedSteps
from server.kernels.ops import Rotary

OPS = CpuOps(torch.float32)
WIDTH = 64
HEADS, KV_HEADS, HEAD_DIM = 3, 1, 32
LAYERS = 3
LONGEST = 100
PANELS = in_panels(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def work_on(x: Tensor) -> Tensor:
    """Products and a sum: what is made for the first product is gone before the third."""
    return OPS.add(multiply(multiply(multiply(x, PANELS, None), PANELS, None), PANELS, None), x)


def test_a_program_repeats_work_with_what_its_tensors_hold_now() -> None:
    x = draw(40, WIDTH, seed=1)
    program = Program(lambda: work_on(x), Memory())
    for seed in range(3):
        x.copy_(draw(40, WIDTH, seed=seed))
        program.run()
        assert torch.equal(program.result, work_on(x))


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_recording_does_not_load_the_compiler_of_torch() -> None:
    """It takes seconds and a folder that can be written."""
    code = """
import sys
import torch
from server.kernels.cpu.program import Memory
with Memory():
    torch.empty(1)
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_goes_from_one_tensor_to_the_next_but_not_from_a_result() -> None:
    memory = Memory()
    x, y = draw(40, WIDTH, seed=1), draw(40, WIDTH, seed=2)
    first = Program(lambda: work_on(x), memory)
    of_one = memory.size_bytes
    assert of_one == 2 * x.nbytes
    second = Program(lambda: work_on(y), memory)
    assert memory.size_bytes == of_one + x.nbytes
    first.run()
    second.run()
    assert torch.equal(first.result, work_on(x))
    assert torch.equal(second.result, work_on(y))


def test_a_program_computes_nothing_while_it_is_recorded() -> None:
    x = torch.ones(2, WIDTH)
    memory = Memory()
    program = Program(lambda: OPS.add(x, x), memory)
    program.result.fill_(7)
    x.fill_(5)
    assert torch.equal(program.result, torch.full_like(x, 7))
    program.run()
    assert torch.equal(program.result, torch.full_like(x, 10))


def test_what_torch_computes_is_refused() -> None:
    x = torch.ones(2, WIDTH)
    with pytest.raises(Unrepeatable, match="torch computes add"):
        Program(lambda: OPS.add(x, x) + 1, Memory())
    # Kernels run again as they did before.
    assert torch.equal(OPS.add(x, x), x + x)


# Steps.


class Layers:
    """Attention, a product and a norm; counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0
        width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
        self.qkv = in_panels(draw(width, WIDTH, seed=3))
        self.out = in_panels(draw(WIDTH, HEADS * HEAD_DIM, seed=4))

    def forward(
        self, x: Tensor, cache: KVCache, batch: CpuBatch, wanted: Tensor | None = None
    ) -> Tensor:
        self.calls += 1
        rotary = Rotary(batch.positions, HEAD_DIM, 1e4, torch.float32)
        heads = [HEADS, KV_HEADS, KV_HEADS]
        for layer in range(LAYERS):
            normed = OPS.rms_norm(x, NORM, 1e-5)
            qkv = torch.unflatten(multiply(normed, self.qkv, None), -1, (-1, HEAD_DIM))
            attended = OPS.rotate_and_attend(
                layer, qkv, rotary, heads=heads, cache=cache, batch=batch
            )
            x = OPS.add(x, multiply(attended.flatten(1), self.out, None))
        return x if wanted is None else x[wanted]


NORM = torch.ones(WIDTH)


def new_cache(rows: int) -> KVCache:
    return KVCache.allocate(
        num_layers=LAYERS,
        num_blocks=rows * -(-LONGEST // BLOCK_SIZE),
        block_size=BLOCK_SIZE,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def batch_of(cache: KVCache, contexts: list[int], count: int = 1) -> CpuBatch:
    """The last `count` tokens of each context."""
    rows = len(contexts)
    tables = torch.arange(cache.keys.shape[1]).view(-1, -(-LONGEST // BLOCK_SIZE))[:rows]
    positions = torch.cat([torch.arange(context - count, context) for context in contexts])
    of_row = torch.arange(rows).repeat_interleave(count)
    blocks = tables[of_row, positions // BLOCK_SIZE]
    return CpuBatch.build(
        cache,
        positions=positions,
        kv_indices=blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
        query_lens=[count] * rows,
        context_lens=contexts,
        block_tables=tables,
    )


@pytest.mark.parametrize("rows", [1, 3, 13])
def test_repeated_steps_give_what_the_layers_give(rows: int) -> None:
    layers = Layers()
    plain, repeated = new_cache(rows), new_cache(rows)
    repeat = RepeatedSteps(layers.forward, LONGEST, patience=0)
    for step in range(6):
        # Contexts of all lengths, which cross borders of blocks and are sorted anew.
        contexts = [1 + step + 7 * (row * 5 % 13) for row in range(rows)]
        hidden = draw(rows, WIDTH, seed=step)
        wanted = torch.arange(rows) if step % 2 else None
        expected = layers.forward(hidden, plain, batch_of(plain, contexts), wanted)
        calls = layers.calls
        found = repeat(hidden, repeated, batch_of(repeated, contexts), wanted)
        assert torch.equal(found, expected)
        assert layers.calls - calls == (2 if step == 0 else 0)  # to warm up and to record
    assert torch.equal(repeated.keys, plain.keys)
    assert torch.equal(repeated.values, plain.values)


def test_a_number_of_rows_is_recorded_once_it_is_seen_often() -> None:
    layers, cache = Layers(), new_cache(3)
    repeat = RepeatedSteps(layers.forward, LONGEST, patience=2)
    calls = []
    for rows in (1, 2, 1, 1, 2, 1, 2, 3):
        before = layers.calls
        found = repeat(draw(rows, WIDTH, seed=1), cache, batch_of(cache, [9] * rows))
        calls.append(layers.calls - before)
        batch = batch_of(cache, [9] * rows)
        assert torch.equal(found, layers.forward(draw(rows, WIDTH, seed=1), cache, batch))
    assert calls == [1, 1, 1, 2, 1, 0, 2, 1]


@pytest.mark.parametrize(("rows", "count"), [(2, 3), (MOST_ROWS + 1, 1)])
def test_steps_of_other_kinds_are_not_recorded(rows: int, count: int) -> None:
    layers, cache = Layers(), new_cache(rows)
    repeat = RepeatedSteps(layers.forward, LONGEST, patience=0)
    hidden, batch = draw(rows * count, WIDTH, seed=1), batch_of(cache, [9] * rows, count)
    expected = layers.forward(hidden, cache, batch)
    assert torch.equal(repeat(hidden, cache, batch), expected)
    assert torch.equal(repeat(hidden, cache, batch), expected)
    assert layers.calls == 3


def test_layers_that_torch_computes_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    layers, cache = Layers(), new_cache(1)

    def forward(x: Tensor, cache: KVCache, batch: CpuBatch, wanted: Tensor | None) -> Tensor:
        return layers.forward(x, cache, batch, wanted) * 2

    repeat = RepeatedSteps(forward, LONGEST, patience=0)
    hidden, batch = draw(1, WIDTH, seed=1), batch_of(cache, [5])
    with caplog.at_level("INFO"):
        for _ in range(3):
            found = repeat(hidden, cache, batch)
            assert torch.equal(found, 2 * layers.forward(hidden, cache, batch))
    assert caplog.messages == ["steps of a few rows go kernel by kernel: torch computes mul"]


def test_a_batch_of_its_own_memory_does_not_change_with_the_one_it_was_made_of() -> None:
    cache = new_cache(2)
    batch, other = batch_of(cache, [9, 3]), batch_of(cache, [4, 20])
    own = batch.copy(LONGEST)
    own.take(other)
    for field in dataclasses.fields(CpuBatch):
        if field.name != "keys":
            assert torch.equal(getattr(own, field.name), getattr(other, field.name))
    assert torch.equal(batch.positions, torch.tensor([8, 2]))
    assert own.keys == 112
