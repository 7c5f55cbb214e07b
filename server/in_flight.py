"""Which inputs the engine is computing: a page that can still be read when it has died.

The engine notes the fingerprints of all requests with a launched row before each launch and after
each step that it has read back. Whoever finds the engine dead, the API above all, knows from it
which requests may be the cause; all others only stood in the queue.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from server.mapped import map_file
from server.messages import Submit

FINGERPRINT_BYTES = 16

_COUNT_BYTES = 4
_ENTRIES_MAX = 1024
"""As many as requests can run at all."""

_SIZE_BYTES = _COUNT_BYTES + _ENTRIES_MAX * FINGERPRINT_BYTES


def fingerprint(submit: Submit) -> bytes:
    """Over what the model reads: tokens and pictures. How the answer is drawn takes no part, so a
    request does not pass for another one by a new seed."""
    digest = hashlib.blake2b(submit.prompt, digest_size=FINGERPRINT_BYTES)
    for image in submit.images:
        digest.update(b"%d:" % image.offset)
        digest.update(image.digest)
    return digest.digest()


class InFlight:
    """The engine's side, in its directory `run_dir`. Begins with nothing in flight."""

    def __init__(self, run_dir: Path) -> None:
        self._page = map_file(_path(run_dir), _SIZE_BYTES)
        self._noted = b""
        self._set_count(0)

    def note(self, fingerprints: Iterable[bytes]) -> None:
        """These, and no others, are being computed."""
        entries = b"".join(itertools.islice(fingerprints, _ENTRIES_MAX))
        if entries != self._noted:  # a steady decode step changes nothing
            self._page[_COUNT_BYTES : _COUNT_BYTES + len(entries)] = entries
            self._set_count(len(entries) // FINGERPRINT_BYTES)
            self._noted = entries

    def _set_count(self, count: int) -> None:
        self._page[:_COUNT_BYTES] = count.to_bytes(_COUNT_BYTES, "little")

    def close(self) -> None:
        self._page.close()


def left_in_flight(run_dir: Path) -> frozenset[bytes]:
    """Fingerprints of what the engine of `run_dir` was computing when it wrote last."""
    try:
        content = _path(run_dir).read_bytes()
    except FileNotFoundError:
        return frozenset()
    size = int.from_bytes(content[:_COUNT_BYTES], "little") * FINGERPRINT_BYTES
    entries = content[_COUNT_BYTES:][:size]
    return frozenset(
        entries[begin : begin + FINGERPRINT_BYTES]
        for begin in range(0, len(entries), FINGERPRINT_BYTES)
    )


def _path(run_dir: Path) -> Path:
    return run_dir / "in-flight"
