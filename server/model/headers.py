"""The headers of safetensors files: names, types, shapes and places, without the data. Imports no
torch; the planner reads them too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from server.errors import CheckpointError

HEADER_MAX_BYTES = 100_000_000
"""What the format allows."""


class Entry(msgspec.Struct, frozen=True):
    """A tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(msgspec.Struct, frozen=True):
    entries: dict[str, Entry]
    size_bytes: int
    """Of the header and its length; the data follow."""


def read_header(path: Path) -> Header:
    """Header of a file, of which the data may be missing.

    Raises:
        CheckpointError: it is none.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_MAX_BYTES:
                raise ValueError("its header is longer than the format allows")
            parts = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
        parts.pop("__metadata__", None)
        entries = {
            name: msgspec.json.decode(part, type=Entry, strict=True) for name, part in parts.items()
        }
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from None
    return Header(entries, 8 + length)
