"""What a grammar costs: time to the first mask and time of each mask after it, per library.

Answers are random walks over the masks, on a vocabulary of 32,009 tokens. xgrammar is measured
where it is installed (`pip install xgrammar`).

    python -m benchmarks.grammars [--tokens 60]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from server.demo.random_checkpoint import MID, write_random_checkpoint
from server.engine.grammar import GrammarCompiler
from server.frontend.matchers import matcher_factory
from server.frontend.tokenizer import Tokenizer
from server.messages import Grammar, GrammarKind

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "pattern": "^[a-z]+@[a-z]+\\.(com|org)$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 5},
    },
    "required": ["name", "age", "email", "tags"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "object": PERSON,
    "nested": {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 10},
    "any JSON object": {"type": "object"},
    "enum of 2,000": {"enum": [f"value {number:05d}" for number in range(2000)]},
}


class Walker(Protocol):
    """A matcher, as this benchmark needs it."""

    def mask(self) -> bytes: ...
    def accept(self, token_id: int) -> None: ...
    @property
    def complete(self) -> bool: ...


def walk(matcher: Walker, tokens: int, chance: random.Random) -> list[float]:
    """Seconds of each mask of a random answer."""
    times = []
    for _ in range(tokens):
        if matcher.complete:
            break
        begin = time.perf_counter()
        mask = matcher.mask()
        times.append(time.perf_counter() - begin)
        matcher.accept(any_of(mask, chance))
    return times


def any_of(mask: bytes, chance: random.Random) -> int:
    """A random token of the mask."""
    bits = int.from_bytes(mask, "little")
    size = bits.bit_length()
    start = chance.randrange(size)
    shifted = bits >> start
    if shifted == 0:
        start, shifted = 0, bits
    return start + (shifted & -shifted).bit_length() - 1


def llguidance(folder: Path) -> Callable[[str], Walker]:
    compiler = GrammarCompiler(matcher_factory(Tokenizer.load(folder), MID.vocab_size))
    return lambda schema: compiler.compile(Grammar(GrammarKind.JSON_SCHEMA, schema)).result()


def xgrammar(folder: Path) -> Callable[[str], Walker]:
    module: Any = importlib.import_module("xgrammar")
    tokenizer = Tokenizer.load(folder)
    encoded = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    info = module.TokenizerInfo(encoded, stop_token_ids=list(tokenizer.stop_ids))
    compiler = module.GrammarCompiler(info, max_threads=1)

    class XMatcher:
        def __init__(self, schema: str) -> None:
            compiled = compiler.compile_json_schema(schema)
            self._matcher = module.GrammarMatcher(compiled, terminate_without_stop_token=True)
            self._bits = module.allocate_token_bitmask(1, tokenizer.vocab_size)
            self.mask()

        def mask(self) -> bytes:
            if not self._matcher.fill_next_token_bitmask(self._bits):
                self._bits.fill_(-1)
            mask: bytes = self._bits.numpy().tobytes()
            return mask

        def accept(self, token_id: int) -> None:
            self._matcher.accept_token(token_id)

        @property
        def complete(self) -> bool:
            return bool(self._matcher.is_terminated())

    return XMatcher


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of grammars.")
    parser.add_argument("--tokens", type=int, default=60)
    arguments = parser.parse_args()
    print("| schema | library | first mask ms | mask p50 us | mask p99 us |")
    print("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), shape=MID)
        libraries = {"llguidance": llguidance(Path(folder))}
        if importlib.util.find_spec("xgrammar"):
            libraries["xgrammar"] = xgrammar(Path(folder))
        for name, schema in SCHEMAS.items():
            for library, start in libraries.items():
                begin = time.perf_counter()
                matcher = start(json.dumps(schema))
                first_ms = (time.perf_counter() - begin) * 1e3
                times = walk(matcher, arguments.tokens, random.Random(1))
                for seed in range(2, 12):
                    times += walk(start(json.dumps(schema)), arguments.tokens, random.Random(seed))
                p50 = statistics.median(times) * 1e6
                p99 = sorted(times)[int(0.99 * (len(times) - 1))] * 1e6
                print(f"| {name} | {library} | {first_ms:.1f} | {p50:.0f} | {p99:.0f} |")


if __name__ == "__main__":
    main()
