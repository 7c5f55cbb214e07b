from __future__ import annotations

import pytest

from server.api.answer import ScoredToken
from server.api.blocks import Begin, Block, Blocks, CallBlock, Change, End, Piece, TextBlock
from server.messages import TokenLogprob

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call>'
TEXT = f"I look.\n{CALL}\n{CALL} Done."


def blocks(*, with_tools: bool = True) -> Blocks:
    return Blocks(with_tools=with_tools, id_prefix="call")


def say(answer: Blocks, *pieces: str) -> list[Change]:
    changes = [change for piece in pieces for change in answer.push(piece)]
    return changes + answer.finish()


def contents(all: list[Block]) -> list[tuple[str, str]]:
    return [
        (block.name, block.arguments) if isinstance(block, CallBlock) else ("", block.text)
        for block in all
    ]


WHOLE = [("", "I look."), ("look", '{"at": "x"}'), ("look", '{"at": "x"}'), ("", " Done.")]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_pieces_do_not_matter(size: int) -> None:
    answer = blocks()
    changes = say(answer, *(TEXT[i : i + size] for i in range(0, len(TEXT), size)))
    assert contents(answer.all) == WHOLE
    said = {id(block): "" for block in answer.all}
    for change in changes:
        if isinstance(change, Piece):
            said[id(change.block)] += change.text
    assert list(said.values()) == [text for _, text in contents(answer.all)]


def test_each_block_begins_and_ends_before_the_next() -> None:
    answer = blocks()
    changes = [c for c in say(answer, *TEXT) if not isinstance(c, Piece)]
    for number, block in enumerate(answer.all):
        begin, end = changes[2 * number : 2 * number + 2]
        assert begin == Begin(block)
        assert isinstance(end, End)
        assert end.block is block
        assert end.last == (number == len(answer.all) - 1)


def test_calls_have_ids_of_their_own() -> None:
    answer = blocks()
    say(answer, TEXT)
    ids = [block.id for block in answer.all if isinstance(block, CallBlock)]
    assert len(set(ids)) == 2
    assert all(id.startswith("call_") for id in ids)


def test_without_tools_everything_is_text() -> None:
    answer = blocks(with_tools=False)
    say(answer, *TEXT)
    assert contents(answer.all) == [("", TEXT)]


def test_an_empty_answer_is_an_empty_text() -> None:
    answer = blocks()
    changes = say(answer, "")
    assert answer.all == [TextBlock()]
    assert changes == [Begin(answer.all[0]), End(answer.all[0], True)]


def token(at: int) -> ScoredToken:
    return ScoredToken(at, TokenLogprob(-1.0, [], []), at)


def tokens(text: str, size: int) -> list[tuple[str, list[ScoredToken]]]:
    """A text in tokens of so many characters, and a last one without any."""
    pieces = [(text[at : at + size], [token(at)]) for at in range(0, len(text), size)]
    return [*pieces, ("", [token(len(text) - 1)])]


def test_scored_tokens_go_to_the_text() -> None:
    answer = blocks()
    changes = answer.push("I", [token(0)])
    (block,) = answer.all
    assert changes == [Begin(block), Piece(block, "I", [token(0)])]
    assert answer.push("", [token(0)]) == [Piece(block, "", [token(0)])]
    assert isinstance(block, TextBlock)
    assert block.scored == [token(0), token(0)]
    begun = answer.push(CALL[:-12], [token(1)])
    assert all(not change.scored for change in begun if isinstance(change, Piece))
    assert block.scored == [token(0), token(0)]


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
@pytest.mark.parametrize("text", [TEXT, f"{CALL} Done.", "No call <b> \n", f"\n{CALL}", "\n"])
def test_each_token_of_a_text_is_news_once(text: str, size: int) -> None:
    answer, whole = blocks(), blocks()
    pieces = tokens(text, size)
    changes = [change for piece in pieces for change in answer.push(*piece)] + answer.finish()
    whole.push(text, [scored for _, (scored,) in pieces])
    whole.finish()
    in_text = text.replace(CALL, "\0" * len(CALL))
    for block, same in zip(answer.all, whole.all, strict=True):
        if isinstance(block, TextBlock):
            assert isinstance(same, TextBlock)
            news = [c for c in changes if isinstance(c, Piece) and c.block is block]
            assert [scored for piece in news for scored in piece.scored] == block.scored
            assert same.scored == block.scored
            begin = in_text.index(block.text)
            own = [t for _, (t,) in pieces if begin <= t.at < begin + len(block.text)]
            assert block.scored[: len(own)] == own


def test_a_token_that_may_begin_a_call_waits_for_what_it_is() -> None:
    answer = blocks()
    assert answer.push("<", [token(0)]) == []
    changes = answer.push("b>", [token(1)])
    (block,) = answer.all
    assert changes == [Begin(block), Piece(block, "<b>", [token(0), token(1)])]


def test_a_token_can_come_after_its_text() -> None:
    answer = blocks()
    answer.push("I lo")
    changes = answer.push(f"ok.\n{CALL}", [token(0), token(2), token(7), token(20)])
    text, call = answer.all
    assert changes[:3] == [
        Piece(text, "", [token(0), token(2)]),
        Piece(text, "ok.", []),
        End(text, False),
    ]
    assert changes[3] == Begin(call)
    assert answer.finish() == [End(call, True)]


def test_the_last_token_of_a_text_has_no_characters() -> None:
    answer = blocks()
    answer.push("Hi", [token(0)])
    answer.push("", [])
    (block,) = answer.all
    assert answer.finish() == [End(block, True)]
    answer = blocks(with_tools=False)
    answer.push("Hi", [token(0), token(2)])
    (block,) = answer.all
    assert answer.finish() == [Piece(block, "", [token(2)]), End(block, True)]
