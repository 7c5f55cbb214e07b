"""The tokens that a checkpoint adds to its sentencepiece model, read from its files.

Newer folders list them in tokenizer_config.json, older ones in added_tokens.json and
special_tokens_map.json; both ways give the same answer. Ids are those of the files: tokens appended
to a sentencepiece model may lie anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from server.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class AddedToken:
    id: int
    special: bool
    """Left out of decoded text."""


def read_added_tokens(folder: Path, pieces: SentencePieceProcessor) -> dict[str, AddedToken]:
    """Added tokens of a checkpoint, by name; the older files leave ids to the sentencepiece model.

    Raises:
        CheckpointError: a file is damaged or asks for something that this server does not do.
    """
    config = _read_object(folder / "tokenizer_config.json")
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        return dict(_parse_decoder(decoder))
    ids = _read_object(folder / "added_tokens.json")
    special = {*_names(_read_object(folder / "special_tokens_map.json")), *_names(config)}
    tokens = {}
    for name in [*ids, *(special - ids.keys())]:
        token_id = ids.get(name, pieces.piece_to_id(name))
        if type(token_id) is not int or (name not in ids and pieces.id_to_piece(token_id) != name):
            raise CheckpointError(f"added_tokens.json: `{name}` has no id")
        tokens[name] = AddedToken(token_id, name in special)
    return tokens


def _parse_decoder(decoder: Any) -> Iterator[tuple[str, AddedToken]]:
    try:
        for token_id, entry in decoder.items():
            name = entry["content"]
            # The authors' tokenizer eats the spaces around such tokens; none of the family has one.
            if entry.get("lstrip") or entry.get("rstrip") or entry.get("single_word"):
                raise CheckpointError(
                    f"tokenizer_config.json: `{name}` uses lstrip, rstrip or single_word, "
                    "which this server does not support"
                )
            yield name, AddedToken(int(token_id), bool(entry.get("special")))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(
            "tokenizer_config.json: `added_tokens_decoder` is not an object of tokens by id"
        ) from None


SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens")


def _names(special_tokens_map: Mapping[str, Any]) -> Iterator[str]:
    """Contents of the special tokens, each of which is a string or an object with `content`."""
    for key in SPECIAL_KEYS:
        value = special_tokens_map.get(key)
        for token in value if isinstance(value, list) else [value]:
            name = token.get("content") if isinstance(token, dict) else token
            if isinstance(name, str):
                yield name


def _read_object(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value
