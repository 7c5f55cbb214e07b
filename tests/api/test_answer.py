from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.answer import Answer, Choice, ScoredToken
from server.frontend.detokenizer import Detokenizer
from server.frontend.prompt import Prompt
from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, TokenLogprob
from tests.golden import CHECKPOINT

TOKENIZER = Tokenizer.load(CHECKPOINT)
TEXT = "One fish, two fish 你好 🎉 END of it"
IDS = TOKENIZER.encode_text(TEXT)
IM_END = TOKENIZER.stop_ids[0]


def new_choice(stop: Sequence[str] = (), own_stop_ids: Sequence[int] = ()) -> Choice:
    return Choice(Detokenizer(TOKENIZER, stop), frozenset(own_stop_ids), end_ids=TOKENIZER.stop_ids)


def new_answer(*choices: Choice, prompt: Prompt | None = None) -> Answer:
    return Answer(prompt or Prompt([1, 2, 3], ()), choices)


def text_of(ids: Sequence[int]) -> str:
    detokenizer = Detokenizer(TOKENIZER)
    return detokenizer.push(ids) + detokenizer.finish()


def test_text_grows_by_what_is_certain() -> None:
    choice = new_choice()
    texts = [choice.push(Delta(1, [token_id])) for token_id in IDS]
    texts.append(choice.push(Delta(1, [], FinishReason.LENGTH)))
    assert "".join(texts) == choice.text == TEXT
    assert not any("\ufffd" in text for text in texts)
    assert (choice.finish_reason, choice.stop_reason) == ("length", None)
    assert choice.token_ids == IDS


def test_an_end_without_any_token() -> None:
    choice = new_choice(own_stop_ids=[5])
    choice.push(Delta(1, [], FinishReason.STOP))
    assert (choice.text, choice.finish_reason, choice.stop_reason) == ("", "stop", None)


def test_a_choice_that_goes_on_has_no_reason() -> None:
    choice = new_choice()
    choice.push(Delta(1, IDS))
    assert (choice.finish_reason, choice.stop_reason) == (None, None)


def test_the_end_token_counts_but_is_no_text() -> None:
    choice = new_choice(own_stop_ids=[5])
    choice.push(Delta(1, [*IDS, IM_END], FinishReason.STOP))
    assert choice.text == TEXT
    assert choice.token_ids == [*IDS, IM_END]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", None)


def test_a_stop_token_of_the_request_is_reported_and_is_no_text() -> None:
    choice = new_choice(own_stop_ids=[IDS[3]])
    choice.push(Delta(1, IDS[:3]))
    choice.push(Delta(1, [IDS[3]], FinishReason.STOP))
    assert TEXT.startswith(choice.text)
    assert choice.text == text_of(IDS[:3])
    assert (choice.finish_reason, choice.stop_reason) == ("stop", IDS[3])


@settings(derandomize=True, max_examples=60)
@given(cuts=st.lists(st.integers(0, len(IDS)), max_size=8))
def test_a_stop_string_ends_the_text_however_the_tokens_are_cut(cuts: list[int]) -> None:
    choice = new_choice(stop=["END", "never"])
    answer, cancelled = new_answer(choice), list[int]()
    edges = [0, *sorted(cuts), len(IDS)]
    for begin, end in itertools.pairwise(edges):
        answer.take(0, Delta(1, IDS[begin:end]), cancelled.append)
    assert choice.text == TEXT[: TEXT.index("END")]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", "END")
    assert cancelled == [0]


def test_nothing_is_taken_after_a_stop_string() -> None:
    choice = new_choice(stop=["fish"])
    answer, cancelled = new_answer(choice), list[int]()
    news = [answer.take(0, Delta(1, [token_id]), cancelled.append) for token_id in IDS]
    taken = [item for item in news if item is not None]
    assert [item.finished for item in taken].count(True) == 1
    assert taken[-1].finished
    assert len(taken) == len(choice.token_ids) < len(IDS)
    assert choice.text == "One "
    assert cancelled == [0]


def test_a_stop_string_in_the_last_delta_needs_no_cancel() -> None:
    choice = new_choice(stop=["fish"])
    cancelled: list[int] = []
    new_answer(choice).take(0, Delta(1, IDS, FinishReason.LENGTH), cancelled.append)
    assert (choice.finish_reason, choice.stop_reason) == ("stop", "fish")
    assert cancelled == []


def test_a_beginning_of_a_stop_string_is_released_at_the_end() -> None:
    choice = new_choice(stop=["of it!"])
    choice.push(Delta(1, IDS))
    assert choice.text == TEXT[: TEXT.index("of it")]
    choice.push(Delta(1, [], FinishReason.LENGTH))
    assert choice.text == TEXT


def test_choices_are_kept_apart() -> None:
    first, second = new_choice(), new_choice()
    answer = new_answer(first, second)
    answer.take(1, Delta(2, IDS[:2]), lambda _: None)
    answer.take(0, Delta(1, IDS[:1]), lambda _: None)
    assert (first.token_ids, second.token_ids) == (IDS[:1], IDS[:2])
    assert answer.output_tokens == 3


def test_usage() -> None:
    prompt = Prompt(list(range(20)), ((3, 4), (9, 4)))
    answer = new_answer(new_choice(), new_choice(), prompt=prompt)
    # The first delta of a choice tells what was cached; the second choice reuses the first one's.
    for index, delta in (
        (0, Delta(1, [5], None, 6)),
        (0, Delta(1, [5])),
        (1, Delta(2, [5], None, 9)),
    ):
        answer.take(index, delta, lambda _: None)
    assert answer.usage() == {
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "total_tokens": 23,
        "prompt_tokens_details": {
            "cached_tokens": 6,
            "image_tokens": 8,
            "text_tokens": 12,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def scored(ids: Sequence[int], begin: int) -> list[TokenLogprob]:
    return [TokenLogprob(-float(begin + place), [], []) for place in range(len(ids))]


@settings(derandomize=True, max_examples=80)
@given(
    cuts=st.lists(st.integers(0, len(IDS)), max_size=8),
    stop=st.lists(st.sampled_from(["END", "never", "fish, t", "你好 🎉 X", "One"]), max_size=2),
)
def test_every_scored_token_is_news_once_and_with_its_text(
    cuts: list[int], stop: list[str]
) -> None:
    choice = new_choice(stop=stop)
    answer = new_answer(choice)
    edges = [0, *sorted(cuts), len(IDS)]
    told: list[ScoredToken] = []
    text = b""
    for begin, end in itertools.pairwise(edges):
        ids = IDS[begin:end]
        finish = FinishReason.LENGTH if end == len(IDS) else None
        news = answer.take(0, Delta(1, ids, finish, logprobs=scored(ids, begin)), lambda _: None)
        if news is None:
            continue
        told += news.scored
        text += news.text.encode()
        data = b"".join(TOKENIZER.token_bytes(token.token_id) for token in told)
        if not news.finished:
            assert data.strip() == text.strip()
    assert [token.token_id for token in told] == choice.token_ids
    assert [-token.logprob.logprob for token in told] == list(range(len(told)))


def test_the_token_that_ends_a_choice_is_kept_on_demand() -> None:
    choice = Choice(Detokenizer(TOKENIZER), frozenset([IDS[3]]), keep_end=True)
    choice.push(Delta(1, IDS[:4], FinishReason.STOP))
    assert choice.text == text_of(IDS[:4])
    assert choice.stop_reason == IDS[3]


def test_a_last_token_that_completes_a_grammar_is_text() -> None:
    choice = new_choice(own_stop_ids=[5])
    choice.push(Delta(1, IDS, FinishReason.STOP))
    assert (choice.text, choice.finish_reason, choice.stop_reason) == (TEXT, "stop", None)


def test_an_end_token_is_no_text_even_where_control_tokens_are_written() -> None:
    detokenizer = Detokenizer(TOKENIZER, skip_special_tokens=False)
    choice = Choice(detokenizer, frozenset(), end_ids=TOKENIZER.stop_ids)
    choice.push(Delta(1, [*IDS, IM_END], FinishReason.STOP))
    assert choice.text == TEXT
