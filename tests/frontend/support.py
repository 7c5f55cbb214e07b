"""What the frontend's tests share: golden and tiny tokenizers, and hostile texts."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from server.frontend.detokenizer import Detokenizer
from server.frontend.template import Control, Piece, TextPart
from server.frontend.tokenizer import Tokenizer
from tests.golden import CHECKPOINT, case

SYSTEM_MESSAGE = "Answer the questions."
TOKENS_PER_IMAGE = 4

CONTROLS: dict[str, int] = case("prompts")["special_token_ids"] | {
    "<|Human|>": 3,
    "<|Assistant|>": 4,
    "<|System|>": 5,
    "<fim_prefix>": 9,
    "<fim_middle>": 10,
    "<fim_suffix>": 11,
}
"""Every control token of the golden checkpoint."""


@cache
def golden_tokenizer() -> Tokenizer:
    return Tokenizer.load(CHECKPOINT)


@cache
def golden_pieces() -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(CHECKPOINT / "tokenizer.model"))


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids that continue a text."""
    detokenizer = Detokenizer(tokenizer, drop_leading_space=False)
    return detokenizer.push(ids) + detokenizer.finish()


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the text before the stop string that begins first, and that string."""
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return text, None
    begin, _, stop = min(found)
    return text[:begin], stop


def as_string(pieces: Sequence[Piece]) -> str:
    """A rendered prompt as the authors write it."""
    text = ""
    for piece in pieces:
        if isinstance(piece, TextPart):
            text += piece.text
        elif isinstance(piece, Control):
            text += piece.name
        else:
            text += "<img>" + "<IMG_CONTEXT>" * (TOKENS_PER_IMAGE * piece.count) + "</img>"
    return text


def train_model(
    folder: Path,
    *,
    tags: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    added_tokens_decoder: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Writes a tiny sentencepiece model, and a tokenizer_config.json, into a folder."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        model_writer=model,
        **{
            "sentence_iterator": iter(["the red panda eats bamboo and the cat writes"] * 20),
            "model_type": "bpe",
            "vocab_size": 330,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "user_defined_symbols": list(tags),
            "minloglevel": 2,
            "num_threads": 1,
            **options,
        },
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {"added_tokens_decoder": added_tokens_decoder or {}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


_controls = st.sampled_from(sorted(CONTROLS))
_broken_controls = st.builds(
    lambda name, start, end: name[start:end], _controls, st.integers(0, 4), st.integers(4, 14)
)
_odd = st.sampled_from(
    ["▁", "▁▁", " ", "  ", "\n", "\0", "<", ">", "|", "🐼", "👩‍🚀", "שלום", "\u202e"]
)
_words = st.sampled_from(["hello", "The", "user\n", "assistant\n", "<image>", "<0x41>", "<int>"])

texts = st.lists(st.one_of(_controls, _broken_controls, _odd, _words, st.text(max_size=8))).map(
    "".join
)
"""Any text without lone surrogates, most of them close to control tokens."""
