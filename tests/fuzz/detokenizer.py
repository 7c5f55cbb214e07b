"""However ids are cut into pushes, the text is that of all at once, cut at the first stop string;
and it is text, whatever the bytes are."""

from __future__ import annotations

from atheris import FuzzedDataProvider

from server.frontend.detokenizer import Detokenizer
from tests.frontend.support import cut, golden_tokenizer
from tests.fuzz.target import Target

TOKENIZER = golden_tokenizer()


def try_one(data: bytes) -> None:
    source = FuzzedDataProvider(data)
    special, space = source.ConsumeBool(), source.ConsumeBool()
    stops = [_text(source) for _ in range(source.ConsumeIntInRange(0, 3))]
    pushes: list[list[int]] = []
    while source.remaining_bytes() and len(pushes) < 64:
        count = source.ConsumeIntInRange(0, 5)
        pushes.append(source.ConsumeIntListInRange(count, 0, TOKENIZER.vocab_size - 1))
    whole = Detokenizer(TOKENIZER, (), special, space)
    expected = whole.push([id for ids in pushes for id in ids]) + whole.finish()
    streamed = Detokenizer(TOKENIZER, stops, special, space)
    text = "".join(map(streamed.push, pushes)) + streamed.finish()
    assert (text, streamed.stopped) == cut(expected, stops)
    assert streamed.released == len(text)
    text.encode()


def _text(source: FuzzedDataProvider) -> str:
    text: str = source.ConsumeUnicodeNoSurrogates(source.ConsumeIntInRange(1, 3))
    return text or "a"


TARGET = Target("detokenizer", try_one, [bytes(range(256)), bytes(64)])
