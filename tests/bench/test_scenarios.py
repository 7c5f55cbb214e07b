from __future__ import annotations

from typing import Any

import pytest

from server.bench.plan import Run, ScenarioName
from server.bench.scenarios import Scenario


def scenario(name: ScenarioName, **changes: Any) -> Scenario:
    return Scenario(Run(scenario=name, **changes), lambda tokens: tokens)


def picture(messages: list[dict[str, Any]]) -> str:
    url: str = messages[0]["content"][0]["image_url"]["url"]
    return url


@pytest.mark.parametrize("name", ["text", "picture", "multi-turn", "json"])
def test_the_seed_decides_everything(name: ScenarioName) -> None:
    first, again, other = (scenario(name, seed=seed) for seed in (1, 1, 2))
    jobs = [(one.next(), one.next()) for one in (first, again, other)]
    told = [[job.messages for job in pair] for pair in jobs]
    assert told[0] == told[1] != told[2]
    assert told[0][0] != told[0][1], "requests are distinct"


@pytest.mark.parametrize(("name", "words"), [("text", 128), ("long", 3000), ("json", 64)])
def test_texts_have_the_length_of_the_scenario(name: ScenarioName, words: int) -> None:
    assert len(scenario(name).next().messages[0]["content"].split()) == words
    assert len(scenario(name, prompt_tokens=9).next().messages[0]["content"].split()) == 9


def test_texts_begin_alike() -> None:
    shared = scenario("text", prompt_tokens=20, prefix_tokens=15)
    first, second = (shared.next().messages[0]["content"].split() for _ in range(2))
    assert len(first) == len(second) == 20
    assert first[:15] == second[:15]
    assert first[15:] != second[15:]


@pytest.mark.parametrize("name", ["text", "picture"])
def test_requests_are_identical(name: ScenarioName) -> None:
    same = scenario(name, identical=True)
    assert same.next().messages == same.next().messages


def test_pictures_are_distinct_or_repeated() -> None:
    distinct, repeated = scenario("picture"), scenario("picture-repeated")
    assert picture(distinct.next().messages) != picture(distinct.next().messages)
    assert picture(repeated.next().messages) == picture(repeated.next().messages)
    assert picture(distinct.next().messages).startswith("data:image/jpeg;base64,")


def test_an_answer_in_json_is_asked_for() -> None:
    form = scenario("json").next().options["response_format"]
    assert form["type"] == "json_schema"


def test_a_conversation_goes_on_when_it_was_answered() -> None:
    talk = scenario("multi-turn", turns=3)
    first, other = talk.next(), talk.next()
    assert picture(first.messages) != picture(other.messages)
    first.answered("yes")
    second = talk.next()
    assert second.messages[:2] == [*first.messages, {"role": "assistant", "content": "yes"}]
    assert second.messages[2]["role"] == "user"
    second.answered("no")
    third = talk.next()
    assert len(third.messages) == 5
    third.answered("done")
    assert len(talk.next().messages) == 1, "three turns are enough"
