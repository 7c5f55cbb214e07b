"""Each field that says how tokens are drawn, and where an answer ends, over the real engine: the
output changes the way it should. A new row of the table without an effect here fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from server.api.chat_parameters import ENDS, SAMPLING
from tests.e2e.daemon import Daemon

END = 7
FEW = list(range(300, 308))
TOKENS = 24
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(daemon: Daemon) -> Ask:
    def ask(**fields: Any) -> dict[str, Any]:
        base = {
            "messages": [{"role": "user", "content": "Hello, who are you?"}],
            "max_tokens": TOKENS,
            "seed": 1,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        return daemon.chat(**{**base, **fields})

    return ask


def ids(answer: dict[str, Any], choice: int = 0) -> list[int]:
    value: list[int] = answer["choices"][choice]["token_ids"]
    return value


def text(answer: dict[str, Any]) -> str:
    value: str = answer["choices"][0]["message"]["content"]
    return value


def greedy(ask: Ask, **fields: Any) -> bool:
    return ids(ask(**fields)) == ids(ask(temperature=0))


def most_frequent(ask: Ask, **fields: Any) -> int:
    """How often the likeliest of few tokens is drawn, each time the likeliest."""
    drawn = ids(ask(temperature=0, allowed_token_ids=FEW, **fields))
    return max(map(drawn.count, drawn))


def different(ask: Ask, **fields: Any) -> int:
    """Different tokens in eight short answers of few tokens, summed up."""
    answer = ask(allowed_token_ids=FEW, max_tokens=6, n=8, **fields)
    return sum(len(set(ids(answer, choice))) for choice in range(8))


def stop_of(ask: Ask) -> tuple[str, str]:
    """A text, and a piece of it that is not at its ends."""
    whole = text(ask(temperature=0))
    return whole, whole[len(whole) // 2 : len(whole) // 2 + 2]


def ends_before_stop(ask: Ask) -> bool:
    whole, piece = stop_of(ask)
    answer = ask(temperature=0, stop=[piece])
    return (
        text(answer) == whole[: whole.index(piece)]
        and answer["choices"][0]["finish_reason"] == "stop"
    )


def keeps_stop(ask: Ask, name: str) -> bool:
    whole, piece = stop_of(ask)
    cut = whole[: whole.index(piece) + len(piece)]
    return text(ask(temperature=0, stop=[piece], **{name: True})) == cut


def stops_at_token(ask: Ask) -> bool:
    whole = ids(ask(temperature=0))
    stop = whole[len(whole) // 2]
    answer = ask(temperature=0, stop_token_ids=[stop])
    return (
        ids(answer) == whole[: whole.index(stop) + 1]
        and answer["choices"][0]["stop_reason"] == stop
    )


def never_ends_early(ask: Ask, name: str) -> bool:
    at_once = ask(temperature=0, ignore_eos=False, logit_bias={str(END): 100})
    later = ask(temperature=0, ignore_eos=False, logit_bias={str(END): 100}, **{name: 5})
    return len(ids(at_once)) == 1 and len(ids(later)) == 6


def without_bad_word(ask: Ask) -> bool:
    first = ask(temperature=0, max_tokens=1)
    word = text(first)
    return ids(ask(temperature=0, max_tokens=1, bad_words=[word])) != ids(first)


EFFECTS: dict[str, Callable[[Ask], bool]] = {
    "temperature": lambda ask: (
        ids(ask(temperature=0, seed=1)) == ids(ask(temperature=0, seed=2))
        and not greedy(ask, temperature=2)
    ),
    "top_p": lambda ask: greedy(ask, top_p=0.0001),
    "top_k": lambda ask: greedy(ask, top_k=1) and not greedy(ask),
    "min_p": lambda ask: greedy(ask, min_p=1),
    "presence_penalty": lambda ask: (
        different(ask, presence_penalty=2) > different(ask, presence_penalty=-2)
    ),
    "frequency_penalty": lambda ask: most_frequent(ask, frequency_penalty=2) < most_frequent(ask),
    "repetition_penalty": lambda ask: most_frequent(ask, repetition_penalty=2) < most_frequent(ask),
    "repeat_penalty": lambda ask: most_frequent(ask, repeat_penalty=2) < most_frequent(ask),
    "seed": lambda ask: ids(ask(seed=5)) == ids(ask(seed=5)) != ids(ask(seed=6)),
    "logit_bias": lambda ask: ids(ask(logit_bias={"300": 100})) == [300] * TOKENS,
    "allowed_token_ids": lambda ask: set(ids(ask(allowed_token_ids=FEW))) <= set(FEW),
    "bad_words": without_bad_word,
    "min_tokens": lambda ask: never_ends_early(ask, "min_tokens"),
    "min_new_tokens": lambda ask: never_ends_early(ask, "min_new_tokens"),
    "n": lambda ask: ids(ask(n=2), 0) == ids(ask(seed=1)) and ids(ask(n=2), 1) == ids(ask(seed=2)),
    "stop": ends_before_stop,
    "stop_token_ids": stops_at_token,
    "ignore_eos": lambda ask: len(ids(ask(logit_bias={str(END): 100}))) == TOKENS,
    "include_stop_str_in_output": lambda ask: keeps_stop(ask, "include_stop_str_in_output"),
    "no_stop_trim": lambda ask: keeps_stop(ask, "no_stop_trim"),
}


def test_every_row_has_its_effect() -> None:
    assert set(EFFECTS) == {row.name for row in (*SAMPLING, *ENDS)}


@pytest.mark.parametrize("name", EFFECTS)
def test_effect(ask: Ask, name: str) -> None:
    assert EFFECTS[name](ask)
