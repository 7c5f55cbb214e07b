"""Compiled kernels on torch's threads.

Torch's operations run on a team of OpenMP threads that wait for the next one awake. Threads of our
own beside them would find the cores taken, so kernels run on the same team: `GOMP_parallel` is how
compiled OpenMP code calls it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np
import torch
from llvmlite import binding
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from torch import Tensor

from server.kernels.cpu.openmp import library

COUNTERS = [("next_item", np.int64), ("next_thread", np.int64)]
"""What every record begins with: threads take their numbers from them."""


Argument = Tensor | float | None
"""A number, or a tensor for the address of its content, or None for no address."""


class Note(Protocol):
    """Takes down what a kernel would have been run with."""

    def __call__(self, address: int, record: bytes, tensors: list[Tensor]) -> None:
        """
        Args:
            address: of its compiled function.
            tensors: what the record has the addresses of.
        """


class _Recording(threading.local):
    note: Note | None = None


_recording = _Recording()


@contextmanager
def recording(note: Note) -> Iterator[None]:
    """Kernels of this thread are not run meanwhile, but noted."""
    assert _recording.note is None
    _recording.note = note
    try:
        yield
    finally:
        _recording.note = None


def missing() -> str | None:
    """Why kernels cannot run here, if they cannot."""
    features = binding.get_host_cpu_features()
    if binding.get_process_triple().startswith("x86") and not features.get("fma"):
        return "this CPU has no fused multiply-add"
    if library() is None:
        return "torch was built with other threads than GNU OpenMP's"
    return None


class Kernel:
    """A function of a pointer to a record, compiled. Every thread of the team calls it once."""

    def __init__(
        self,
        function: Callable[..., None],
        integers: str,
        floats: Sequence[str] = (),
        variant: object = None,
    ) -> None:
        """
        Args:
            integers, floats: names of the record's fields.
            variant: tells functions of one definition apart. What a function's closure holds must
                follow from it.
        """
        self._names = [*integers.split(), *floats]
        fields = [(name, np.float32 if name in floats else np.int64) for name in self._names]
        kind = np.dtype(COUNTERS + fields)
        self._record = struct.Struct(f"={len(COUNTERS) + len(integers.split())}q{len(floats)}f")
        assert self._record.size == kind.itemsize
        signature = (types.CPointer(numba.from_dtype(kind)),), types.void
        openmp = library()
        assert openmp is not None, missing()
        self._start = openmp.GOMP_parallel
        self._start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._start.restype = None
        if variant is not None:
            function.__qualname__ += f"_{hashlib.sha256(repr(variant).encode()).hexdigest()[:8]}"
        compiled: Any = CFunc(function, signature, {}, {"error_model": "numpy"})
        if _keep():
            compiled._cache = _Kept(function, repr(variant))
        compiled.compile()
        self._compiled = compiled
        self._address: int = compiled.address

    @property
    def was_kept(self) -> bool:
        """Whether an earlier process compiled it."""
        return bool(self._compiled.cache_hits)

    def run(self, **arguments: Argument) -> None:
        given = [arguments[name] for name in self._names]
        values = [one.data_ptr() if isinstance(one, Tensor) else one or 0 for one in given]
        record = self._record.pack(*[0] * len(COUNTERS), *values)
        if _recording.note is None:
            memory = bytearray(record)
            at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            self._start(self._address, at, torch.get_num_threads(), 0)
        else:
            tensors = [one for one in given if isinstance(one, Tensor)]
            _recording.note(self._address, record, tensors)


class _Kept(FunctionCache):  # type: ignore[misc]
    """Files for one kernel alone.

    numba's own are for all variants of a function. Two processes that compile different ones at the
    same time may both write a file of the same name there, and one would run what the other has
    compiled. It also tells variants apart by what closures hold, which differs in each process.
    """

    def __init__(self, function: Callable[..., None], variant: str) -> None:
        super().__init__(function)
        digest = hashlib.sha256(variant.encode()).hexdigest()[:16]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{digest}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return signature, codegen.magic_tuple()


@cache
def _keep() -> bool:
    """Has numba keep what it compiles in its own folder (`NUMBA_CACHE_DIR`) or the user's, by the
    sources that kernels are made of and the CPU that they are made for: its own check looks at one
    file, and homes are shared. Returns whether it can."""
    machine = (numba.__version__, binding.get_host_cpu_name(), binding.get_host_cpu_features())
    digest = hashlib.sha256(repr(machine).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    try:
        base = Path(numba.config.CACHE_DIR or Path.home() / ".cache/internvl-serve")
        folder = base / f"kernels-{digest.hexdigest()[:16]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the second where nobody has a home
        return False
    numba.config.CACHE_DIR = str(folder)
    return os.access(folder, os.W_OK)
