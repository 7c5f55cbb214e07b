"""What each token id stands for, and which ids are control tokens.

A control token is one that means something beyond text: every added token, sentencepiece's own
control pieces, and user-defined tags that sentencepiece finds in plain text, such as `<|im_end|>`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sentencepiece import SentencePieceProcessor

from server.errors import CheckpointError
from server.frontend.added_tokens import AddedToken

SPACE = "▁"
"""How sentencepiece writes a space, U+2581."""

TAG = re.compile(r"<[^<>]+>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    names: list[str]
    """By id, as the files write it; empty for an id that they do not name."""
    data: list[bytes]
    """By id: what the token adds to a text if it is not left out."""
    byte_ids: list[int]
    """By byte: the token that spells it."""
    controls: Mapping[str, int]
    """Control tokens by name."""
    special_ids: frozenset[int]
    """Control tokens that decoding leaves out."""
    texts: Mapping[int, str]
    """By id: what decoding adds to a text, for tokens of whole characters."""


def read_vocabulary(pieces: SentencePieceProcessor, added: Mapping[str, AddedToken]) -> Vocabulary:
    """Vocabulary of a sentencepiece model and the tokens added to it.

    Raises:
        CheckpointError: the model cannot spell every text.
    """
    names = _names(pieces, added)
    byte_ids = pieces.piece_to_id([f"<0x{byte:02X}>" for byte in range(256)])
    if not all(pieces.is_byte(byte_ids)):
        raise CheckpointError("tokenizer.model has no byte pieces and cannot spell every text")
    data = [name.replace(SPACE, " ").encode() for name in names]
    for byte, token_id in enumerate(byte_ids):
        data[token_id] = bytes([byte])
    controls = {
        name: token_id
        for token_id, name in enumerate(names[: pieces.vocab_size()])
        if pieces.is_control(token_id) or pieces.is_unknown(token_id)
    }
    special_ids = {*controls.values(), *(token.id for token in added.values() if token.special)}
    controls |= {name: pieces.piece_to_id(name) for name in _user_defined_tags(pieces)}
    controls |= {name: token.id for name, token in added.items()}
    return Vocabulary(
        names, data, byte_ids, controls, frozenset(special_ids), _texts(data, special_ids)
    )


def _texts(data: list[bytes], special_ids: set[int]) -> dict[int, str]:
    texts = {}
    for token_id, piece in enumerate(data):
        with contextlib.suppress(UnicodeDecodeError):  # a byte of some character
            texts[token_id] = "" if token_id in special_ids else piece.decode()
    return texts


def _names(pieces: SentencePieceProcessor, added: Mapping[str, AddedToken]) -> list[str]:
    names: list[str] = pieces.id_to_piece(list(range(pieces.vocab_size())))
    size = max((token.id + 1 for token in added.values()), default=0)
    names += [""] * (size - len(names))
    for name, token in added.items():
        names[token.id] = name
    return names


def _user_defined_tags(pieces: SentencePieceProcessor) -> list[str]:
    """Tags that sentencepiece finds in plain text by itself.

    Sentencepiece does not tell user-defined pieces from ordinary ones such as `<int>`. They are
    those that stay in one piece when no merge is allowed, which is what an alpha of 1 means.
    """
    names = pieces.id_to_piece([i for i in range(pieces.vocab_size()) if not pieces.is_byte(i)])
    tags = [name for name in names if TAG.fullmatch(name)]
    unmerged = pieces.encode(tags, out_type=str, enable_sampling=True, alpha=1.0, nbest_size=-1)
    return [tag for tag, parts in zip(tags, unmerged, strict=True) if tag in parts]
