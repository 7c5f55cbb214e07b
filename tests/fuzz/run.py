"""Fuzzes one target: `python -m tests.fuzz.run TARGET SECONDS [FOLDER]`.

Functions of bytes are guided by coverage. Their corpus is kept in FOLDER/TARGET and grows from run
to run; an input that shows a bug is written to FOLDER as crash-..., and the run ends with its
traceback and a status that is not 0. Requests are made by hypothesis, which prints the shortest bad
one.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from pathlib import Path

import atheris

from tests.fuzz.target import Target

INPUT_BYTES_MAX = 4096
EXAMPLES = 200


def main() -> None:
    name, seconds = sys.argv[1], int(sys.argv[2])
    if name == "requests":
        search_requests(seconds)
        return
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else ".cache/fuzz")
    with atheris.instrument_imports(include=["server", "PIL"]):
        fuzz(importlib.import_module(f"tests.fuzz.{name}").TARGET, seconds, folder)


def search_requests(seconds: int) -> None:
    search = importlib.import_module("tests.fuzz.requests").search
    began_s, rounds = time.monotonic(), 0
    while time.monotonic() - began_s < seconds:
        search(EXAMPLES, seed=rounds)
        rounds += 1
    print(f"Done {rounds * EXAMPLES} requests in {time.monotonic() - began_s:.0f} s")


def fuzz(target: Target, seconds: int, folder: Path) -> None:
    """Does not return."""
    corpus = folder / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={folder}/",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
