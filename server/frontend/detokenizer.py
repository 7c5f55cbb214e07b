"""Token ids to text, as they come: no token waits longer than its characters need.

The text is that of the authors' tokenizer for the whole sequence, however the ids are cut into
pushes: special tokens vanish, byte tokens form UTF-8 together, and each byte that belongs to no
character becomes U+FFFD. The cost of a token does not grow with the text.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence

from server.frontend.stop_strings import StopFinder
from server.frontend.tokenizer import Tokenizer
from server.frontend.vocabulary import SPACE

INVALID_BYTE = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of a byte: one for each, like sentencepiece and unlike `replace`."""


class Detokenizer:
    """The text of one answer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: Iterable[str] = (),
        skip_special_tokens: bool = True,
        drop_leading_space: bool = True,
        keep_stop_string: bool = False,
    ) -> None:
        """Starts an empty text.

        Args:
            stop_strings: the text ends before the one that begins first.
            skip_special_tokens: leave control tokens out instead of writing their names.
            drop_leading_space: drop one space in front of the first token, as the authors'
                tokenizer does; wrong where the ids continue a text of the client.
            keep_stop_string: the text ends behind the stop string instead.
        """
        self._tokenizer = tokenizer
        self._keep_special = not skip_special_tokens
        self._drop_leading_space = drop_leading_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._stops = StopFinder(stop_strings, keep=keep_stop_string)
        self._texts = tokenizer.texts if skip_special_tokens else {}
        self._open = True
        """Something of the text so far may be held back or changed."""
        self._decoded = 0
        self.released = 0
        """Characters that `push` and `finish` have returned."""

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text; tokens after it are ignored."""
        return self._stops.stopped

    @property
    def reached(self) -> int:
        """Where in the text the tokens so far end, in characters; an unfinished one counts."""
        return self._decoded + bool(self._utf8.getstate()[0])

    def push(self, token_ids: Sequence[int]) -> str:
        """Takes the next ids and returns the text that is certain now, often none."""
        if not self._open:
            pieces = list(map(self._texts.get, token_ids))
            if None not in pieces:
                text = "".join(pieces)  # type: ignore[arg-type]
                self._decoded += len(text)
                return self._released(text)
        data = b"".join(map(self._bytes_of, token_ids))
        text = self._released(self._stops.push(self._decode(data, final=False)))
        self._open = bool(
            self._drop_leading_space or self._stops.searches or self._utf8.getstate()[0]
        )
        return text

    def finish(self) -> str:
        """Returns what was held back; the answer has ended."""
        text = self._stops.push(self._decode(b"", final=True))
        return self._released(text + self._stops.finish())

    def _bytes_of(self, token_id: int) -> bytes:
        data = self._tokenizer.token_bytes(token_id, keep_special=self._keep_special)
        if self._drop_leading_space and data:
            self._drop_leading_space = False
            if self._tokenizer.token_name(token_id).startswith(SPACE):
                return data[1:]
        return data

    def _decode(self, data: bytes, *, final: bool) -> str:
        text = INVALID_BYTE.sub("\ufffd", self._utf8.decode(data, final))
        self._decoded += len(text)
        return text

    def _released(self, text: str) -> str:
        self.released += len(text)
        return text
