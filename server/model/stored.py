"""Weight files: which tensors they hold, of which type and shape, and their rows.

Safetensors are read by offset, so that a rank reads what it holds and nothing else, from several
threads at once. The older .bin files go through torch's restricted reader: tensors and nothing
else, no code of a checkpoint is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from server.errors import CheckpointError
from server.model.headers import read_header

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Stored(Protocol):
    """A tensor in a file."""

    @property
    def place(self) -> str:
        """File and name, for people."""

    @property
    def dtype(self) -> str:
        """As safetensors spells it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def row_bytes(self) -> int: ...

    def rows(self, rows: range, buffer: Tensor) -> Tensor:
        """Some rows, perhaps in the uint8 `buffer`, which is large enough.

        Raises:
            CheckpointError: the file cannot be read, or not so far.
        """


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """A tensor of a safetensors file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def place(self) -> str:
        return f"{self.path.name}: `{self.name}`"

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * DTYPES[self.dtype].itemsize

    def rows(self, rows: range, buffer: Tensor) -> Tensor:
        wanted = buffer[: len(rows) * self.row_bytes]
        view, offset = memoryview(wanted.numpy().data), self.offset + rows.start * self.row_bytes
        try:
            with _descriptor(self.path) as file:
                while view:
                    count = os.preadv(file, [view], offset)
                    if count == 0:
                        raise OSError("the file ends too early")
                    view, offset = view[count:], offset + count
        except OSError as error:
            raise CheckpointError(f"{self.place} cannot be read: {error}") from None
        return wanted.view(DTYPES[self.dtype]).view(len(rows), *self.shape[1:])


@dataclass(frozen=True, slots=True)
class BinTensor:
    """A tensor of a .bin file, mapped into memory."""

    path: Path
    name: str
    tensor: Tensor

    @property
    def place(self) -> str:
        return f"{self.path.name}: `{self.name}`"

    @property
    def dtype(self) -> str:
        names = {dtype: name for name, dtype in DTYPES.items()}
        return names.get(self.tensor.dtype, str(self.tensor.dtype).removeprefix("torch."))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.tensor.itemsize

    def rows(self, rows: range, buffer: Tensor) -> Tensor:
        return self.tensor[rows.start : rows.stop]


def read_headers(path: Path) -> dict[str, Stored]:
    """The tensors of a weight file by name, without their values.

    Raises:
        CheckpointError: the file is missing, cut off, or not what its name says.
    """
    return _read_bin(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="pt"):
            pass  # it checks the header against itself and the size of the file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from None
    header = read_header(path)
    return {
        name: SafeTensor(
            path, name, entry.dtype, entry.shape, header.size_bytes + entry.data_offsets[0]
        )
        for name, entry in header.entries.items()
    }


def _read_bin(path: Path) -> dict[str, Stored]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a strange file fails in many ways
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} cannot be read as tensors alone: {reason}") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path.name} holds other things than tensors by name")
    return {name: BinTensor(path, name, tensor) for name, tensor in content.items()}


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
