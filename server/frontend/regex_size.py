"""How large a regular expression is when its repeats are written out.

The library that follows expressions bounds their length, not what nested repeats make of it: three
levels of a thousand can be built in no time and not be followed. This counts without writing out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SIZE_MAX = 20_000
"""Characters of an expression with all its repeats written out."""

CLASS = r"\[ \^? \]? (?: \\. | [^]\\] )* (?: \] | (?P<unclosed>) )"
OTHERS = r"\\. | \{ (?P<least>\d+) (?: , (?P<most>\d*) )? \} | ."
TOKEN = re.compile(f"{CLASS} | {OTHERS}", re.VERBOSE | re.DOTALL)
OUTSIDE_CLASSES = re.compile(OTHERS, re.VERBOSE | re.DOTALL)


def written_out(pattern: str) -> int:
    """Characters and classes of a pattern with its repeats written out; no more than a little
    above `SIZE_MAX` is counted."""
    sizes, total, last = [0], 0, 0
    for token in _tokens(pattern):
        text = token[0]
        if text == "(":
            sizes.append(0)
            last = 0
        elif text == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif token["least"] is not None:
            # Digits beyond the first few cannot make a difference.
            times = max(int(token["least"][:9]), int((token["most"] or "0")[:9]), 1)
            sizes[-1] += last * (times - 1)
            total += last * (times - 1)
            last *= times
        elif text not in "?*+|":
            last = 1
            sizes[-1] += 1
            total += 1
        if total > SIZE_MAX:
            return SIZE_MAX + 1
    return total


def _tokens(pattern: str) -> Iterator[re.Match[str]]:
    for token in TOKEN.finditer(pattern):
        if token.lastgroup == "unclosed":
            # Nothing ends this class, and so nothing ends one that begins behind it.
            yield from OUTSIDE_CLASSES.finditer(pattern, token.start())
            return
        yield token
