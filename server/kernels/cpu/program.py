"""Kernels one after the other by one call: recorded once, repeated with other contents.

What Python does between two kernels takes longer than many of them where rows are few. A program
keeps their records, and the team goes from one to the next without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from server.kernels.cpu.openmp import library
from server.kernels.cpu.team import Kernel, recording
from server.kernels.cpu.vectors import LINE_BYTES, load_index

_LONG = ir.IntType(64)
_STEP = np.dtype([("function", np.int64), ("record", np.int64)])


class Unrepeatable(Exception):
    """What work does besides running kernels."""


@intrinsic
def _call(context, function, argument):
    """A compiled function at an address."""

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [_LONG])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


def _play(pointer):
    a = carray(pointer, 1)[0]
    for index in range(a.steps):
        step = a.program + index * 16
        _call(load_index(step), load_index(step + 8))
        _call(a.barrier, 0)


PLAY = Kernel(_play, "steps program barrier")


class Memory(TorchDispatchMode):
    """Gives tensors memory, and later ones that of those which are gone. All else that torch would
    do, but for looking at a tensor otherwise, is refused: nobody would repeat it."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[_Block] = []

    @property
    def size_bytes(self) -> int:
        return sum(len(block.memory) for block in self._blocks)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Skipping it would load it: seconds, and a folder to write in."""
        return False

    def has(self, tensor: Tensor) -> bool:
        begin = tensor.untyped_storage().data_ptr()
        return any(block.memory.ctypes.data == begin for block in self._blocks)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.is_view:
            return func(*args, **kwargs or {})
        if func._opname.startswith(("empty", "new_empty")):
            return self._place(func(*args, **kwargs or {}))
        raise Unrepeatable(f"torch computes {func._opname}")

    def _place(self, like: Tensor) -> Tensor:
        """A tensor of the same shape in memory that nobody has now."""
        free = [b for b in self._blocks if len(b.memory) >= like.nbytes and b.user.expired()]
        if free:
            block = min(free, key=lambda block: len(block.memory))
        else:
            memory = torch.empty(max(1, like.nbytes), dtype=torch.uint8).numpy()
            self._blocks.append(block := _Block(memory))
        return block.lend(like)


class _Block:
    """Memory of one tensor at a time, and its views."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.user: Any = None

    def lend(self, like: Tensor) -> Tensor:
        tensor = torch.frombuffer(self.memory, dtype=like.dtype, count=like.numel())
        self.user = StorageWeakRef(tensor.untyped_storage())
        return tensor.view(like.shape)


class Program:
    """What `work` does, as long as that is running kernels: with the same tensors, whatever they
    hold then.

    Args:
        memory: for what `work` makes. Programs that run one after another may share it.

    Raises:
        Unrepeatable: `work` does something else.
    """

    def __init__(self, work: Callable[[], Tensor], memory: Memory) -> None:
        self._kept: list[Any] = [memory]
        functions: list[int] = []
        records: list[bytes] = []

        def note(address: int, record: bytes, tensors: list[Tensor]) -> None:
            functions.append(address)
            # Counters of two kernels in one line of the cache would be in each other's way.
            records.append(record.ljust(-(-len(record) // LINE_BYTES) * LINE_BYTES, b"\0"))
            self._kept += [tensor for tensor in tensors if not memory.has(tensor)]

        with recording(note), memory:
            self.result = work()
            """What the last run gave. Its memory is this program's alone."""
        self._fresh = np.frombuffer(b"".join(records), np.uint8)
        self._records = self._fresh.copy()
        sizes = [len(record) for record in records]
        self._steps = np.empty(len(records), _STEP)
        self._steps["function"] = functions
        self._steps["record"] = self._records.ctypes.data + np.cumsum(sizes) - sizes
        self._threads = torch.get_num_threads()

    def run(self) -> None:
        """With as many threads as there were when it was recorded."""
        assert torch.get_num_threads() == self._threads
        # The counters by which threads share the work begin at 0.
        self._records[:] = self._fresh
        PLAY.run(steps=len(self._steps), program=self._steps.ctypes.data, barrier=_barrier())


@cache
def _barrier() -> int:
    """The address of the function in which the threads of a team meet."""
    openmp = library()
    assert openmp is not None
    address = ctypes.cast(openmp.GOMP_barrier, ctypes.c_void_p).value
    assert address is not None
    return address
