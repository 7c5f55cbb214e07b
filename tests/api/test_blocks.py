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


def test_scored_tokens_go_to_the_text() -> None:
    token = ScoredToken(5, TokenLogprob(-1.0, [], []))
    answer = blocks()
    changes = answer.push("I", [token])
    (block,) = answer.all
    assert changes == [Begin(block), Piece(block, "I", [token])]
    assert answer.push("", [token]) == [Piece(block, "", [token])]
    assert isinstance(block, TextBlock)
    assert block.scored == [token, token]
    begun = answer.push(CALL[:-12], [token])
    assert all(not change.scored for change in begun if isinstance(change, Piece))
