"""Text to token ids and back to bytes, by the checkpoint's own sentencepiece model.

There are two ways in, and the difference is a security border: `encode_text` is for everything that
a client sent and never returns a control token; `encode_trusted` reads control tokens out of the
text, as the authors' tokenizer does everywhere. Every id is looked up by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from server.errors import CheckpointError, invalid
from server.frontend.added_tokens import AddedToken, read_added_tokens
from server.frontend.vocabulary import SPACE, read_vocabulary

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|im_sep|>")
"""The first ends every answer of the model; the others appear only when it has lost its way."""

SENTINEL = "\0"
"""A character that never merges with its neighbours. Text behind it is encoded as in the middle of
a sentence, without the space that some models put in front."""


class Tokenizer:
    """Safe to use from several threads."""

    def __init__(self, pieces: SentencePieceProcessor, added: Mapping[str, AddedToken]) -> None:
        self._pieces = pieces
        self._vocabulary = read_vocabulary(pieces, added)
        self._control_ids = frozenset(self._vocabulary.controls.values())
        self._sentinel_length = len(pieces.encode(SENTINEL))
        self._added_pattern = re.compile(f"({_any_of(added)})")
        # A match ends where the text must be cut: behind the first character of a control symbol.
        symbols = _any_of(self._vocabulary.controls)
        self._cut_pattern = re.compile(f"(?=(?:{symbols}))(?s:.)|(?P<space>{SPACE})")
        self.control_id(STOP_TOKENS[0])

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads tokenizer.model and the added tokens of a checkpoint.

        Raises:
            CheckpointError: names the file or token that is missing or wrong.
        """
        path = folder / "tokenizer.model"
        pieces = SentencePieceProcessor()
        try:
            pieces.load_from_serialized_proto(path.read_bytes())
        except (OSError, RuntimeError):
            raise CheckpointError(f"{path} is missing or is no sentencepiece model") from None
        return cls(pieces, read_added_tokens(folder, pieces))

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary.names)

    @property
    def puts_space_in_front(self) -> bool:
        """Whether the first token of a text carries a space that the text does not have."""
        return self.token_bytes(self._encode_piece("a")[0]).startswith(b" ")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer; the end of a message comes first."""
        controls = self._vocabulary.controls
        return tuple(controls[name] for name in STOP_TOKENS if name in controls)

    def control_id(self, name: str) -> int:
        """Id of a control token.

        Raises:
            CheckpointError: there is none of that name.
        """
        try:
            return self._vocabulary.controls[name]
        except KeyError:
            raise CheckpointError(f"the tokenizer has no control token `{name}`") from None

    def is_special(self, token_id: int) -> bool:
        """Whether decoding leaves the token out."""
        return token_id in self._vocabulary.special_ids

    def token_name(self, token_id: int) -> str:
        """The token as the files write it; empty for an id that they do not name."""
        names = self._vocabulary.names
        return names[token_id] if 0 <= token_id < len(names) else ""

    @property
    def texts(self) -> Mapping[int, str]:
        """What tokens of whole characters add to a text; special tokens nothing."""
        return self._vocabulary.texts

    def token_bytes(self, token_id: int, *, keep_special: bool = False) -> bytes:
        """What the token adds to the text. Special tokens give nothing, or their name."""
        if token_id in self._vocabulary.special_ids and not keep_special:
            return b""
        data = self._vocabulary.data
        return data[token_id] if 0 <= token_id < len(data) else b""

    def encode_trusted(self, text: str) -> list[int]:
        """Ids exactly as the authors' tokenizer gives them, control tokens included.

        The text is cut at added tokens and every remaining piece is encoded on its own.
        """
        ids: list[int] = []
        for position, piece in enumerate(self._added_pattern.split(text)):
            if position % 2:
                ids.append(self.control_id(piece))
            elif piece:
                ids += self._encode_piece(piece)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text that stays text: what looks like a control token is spelled out.

        The bytes of the text survive. Without control symbols and U+2581, which sentencepiece would
        turn into a space, the ids are those of `encode_trusted`.

        Raises:
            ApiError: the text holds a lone surrogate.
        """
        ids: list[int] = []
        start = 0
        for cut in self._cut_pattern.finditer(text):
            if cut["space"]:
                ids += self._encode_fragment(text, start, cut.start())
                ids += self._spell(SPACE)
            else:
                ids += self._encode_fragment(text, start, cut.end())
            start = cut.end()
        ids += self._encode_fragment(text, start, len(text))
        if not self._control_ids.isdisjoint(ids):
            # Only a model that normalises its input can still write a control symbol by itself.
            return self._spell(text)
        return ids

    def _encode_fragment(self, text: str, start: int, end: int) -> list[int]:
        if start == end:
            return []
        if start == 0:
            return self._encode_piece(text[:end])
        return self._encode_piece(SENTINEL + text[start:end])[self._sentinel_length :]

    def _encode_piece(self, piece: str) -> list[int]:
        try:
            ids: list[int] = self._pieces.encode(piece)
        except RuntimeError:  # the binding takes every str that has a form in UTF-8
            raise invalid("The text holds a lone surrogate.", param=None) from None
        return ids

    def _spell(self, text: str) -> list[int]:
        """One token for each byte."""
        return [self._vocabulary.byte_ids[byte] for byte in text.encode()]


def _any_of(names: Iterable[str]) -> str:
    """Pattern of any of the names, the longest that fits; of nothing where there are none."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    return "|".join(map(re.escape, longest_first)) or "(?!)"
