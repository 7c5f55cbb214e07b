from __future__ import annotations

import time

import pytest

from server.frontend.regex_size import SIZE_MAX, written_out


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        (r"\d\d", 2),
        ("[a-z{9}]", 1),
        (r"[]\]x]y", 2),
        ("a{5}", 5),
        ("a{2,5}", 5),
        ("a{3,}b", 4),
        ("(ab){10}", 20),
        ("((a{2}){3}b){4}c?", 29),
        ("(a|bc)*", 3),
        (r"\{9{2}", 3),
        ("a{0}", 1),
        (")))", 3),
        ("(((", 0),
        ("[[[", 3),
        ("(ab[c){3}", 12),
        (r"[a\](b{3}", 6),
        ("[a](b[c{3}", 6),
        ("{12", 3),
        ("{,5}", 4),
    ],
)
def test_sizes(pattern: str, size: int) -> None:
    assert written_out(pattern) == size


@pytest.mark.parametrize(
    "pattern",
    ["((a{1000}){1000}){1000}", "a{999999999999999999999}", "(" * 900 + "a" + "){9}" * 900],
)
def test_a_bomb_is_counted_at_once(pattern: str) -> None:
    began_at = time.process_time()
    assert written_out(pattern) > SIZE_MAX
    assert time.process_time() - began_at < 1


@pytest.mark.parametrize("pattern", ["[" * 65_000, "(" * 65_000, "{" + "1" * 65_000])
def test_what_is_never_closed_is_read_once(pattern: str) -> None:
    began_s = time.thread_time()
    written_out(pattern)
    assert time.thread_time() - began_s < 2
