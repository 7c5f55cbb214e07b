"""A tokenizer in the layout of InternVL-Chat-V1-2, trained on the few sentences below.

Like the original it is a sentencepiece BPE with byte fallback that never adds or drops a space and
splits numbers into digits; control tokens keep their ids, and the tokens that the authors added
follow the base vocabulary. A vocabulary larger than the sentences can fill gets made-up words.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece

BASE_TOKENS = (
    "<|Human|>",
    "<|Assistant|>",
    "<|System|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<img>",
    "</img>",
)
"""Pieces of the sentencepiece model itself, from id 3 on."""

ADDED_TOKENS = ("<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
"""Tokens after the base vocabulary."""

UNKNOWN, START, END_OF_TEXT, END_OF_TURN = "<unk>", "<|startoftext|>", "<|endoftext|>", "<|im_end|>"

SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_sep|>", "<img>", "</img>", *ADDED_TOKENS)
"""What decoding leaves out, besides the unknown, start and end tokens."""

SENTENCES = (
    "Answer the questions.",
    "Hello, who are you?",
    "Please describe the image shortly.",
    "Describe the two images in detail.",
    "What are the similarities and differences between these two images?",
    "How many people are there in the picture, and what are they doing?",
    "A red car stands next to a small white house with a green door.",
    "Two children play with a blue ball on the grass near the river.",
    "The chart shows the number of items that were sold in each month.",
    "An old man reads a newspaper and drinks a cup of tea in the garden.",
    "The photo was taken early in the morning, because the light is still soft.",
    "There is some text on the sign, but I can not read all of it.",
    "The first frame of the video shows a train that leaves the station.",
    "In the second frame a woman opens her umbrella; it has begun to rain.",
    "I see three bottles, a plate with bread, and a bowl of fruit on the table.",
    "Yes, the answer is 42. No, it is not 7, 19, 358 or 60.",
    "Write a short poem about the wind, the sea and the mountains.",
    "My name is a model; I look at pictures and tell you what is in them.",
    "你好，请问你是谁？",
    "请用一句话描述这张图片。",
    "请详细描述这两张图片的相同点和不同点。",
    "图中有一辆红色的汽车停在白色的房子旁边。",
    "两个孩子在河边的草地上玩一个蓝色的球。",
    "桌子上放着一杯热茶、三本书和一盘水果。",
    "这张图表显示了每个月卖出的数量。",
    "老人在公园里看报纸，天气很好。",
    "视频的第一帧里，火车正在离开车站。",
    "下雨了，她打开了雨伞，慢慢地走回家。",
    "请写一首关于大海和高山的诗。",
    "我是一个看图说话的模型，很高兴回答你的问题。",
)

SENTENCE_WEIGHT = 50
"""Repetitions of the sentences, so that their words are learned before made-up ones."""


def tokenizer_files(vocab_size: int, max_positions: int) -> dict[str, Any]:
    """Contents by name of the json files beside `tokenizer.model`; `vocab_size` counts the added
    tokens too."""
    ids = {token: index for index, token in enumerate((UNKNOWN, START, END_OF_TEXT, *BASE_TOKENS))}
    added = {token: _base_size(vocab_size) + index for index, token in enumerate(ADDED_TOKENS)}
    ids |= added
    named = {
        "bos_token": START,
        "eos_token": END_OF_TURN,
        "pad_token": UNKNOWN,
        "unk_token": UNKNOWN,
    }
    special = {*SPECIAL_TOKENS, *named.values()}
    decoder = {
        str(index): _token(token) | {"special": True}
        for token, index in ids.items()
        if token in special
    }
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": SPECIAL_TOKENS,
        **named,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": max_positions,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "LlamaTokenizer",
        "use_default_system_prompt": False,
    }
    special_map = {
        "additional_special_tokens": [_token(token) for token in SPECIAL_TOKENS],
        **{name: _token(token) for name, token in named.items()},
    }
    return {
        "added_tokens.json": added,
        "special_tokens_map.json": special_map,
        "tokenizer_config.json": config,
    }


def train_tokenizer(vocab_size: int, text: Iterable[str] | None = None) -> bytes:
    """The content of `tokenizer.model`: all of the vocabulary but the added tokens, the same bytes
    every time. Without `text` it learns the sentences above and made-up words."""
    model = io.BytesIO()
    sentences = _training_text(made_up_words=2 * vocab_size) if text is None else text
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=_base_size(vocab_size),
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        unk_piece=UNKNOWN,
        bos_piece=START,
        eos_piece=END_OF_TEXT,
        user_defined_symbols=list(BASE_TOKENS),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _training_text(made_up_words: int) -> Iterator[str]:
    for _ in range(SENTENCE_WEIGHT):
        yield from SENTENCES
    chance = random.Random(0)
    for _ in range(made_up_words):
        syllables = (
            chance.choice("bdfgklmnprst") + chance.choice("aeiou")
            for _ in range(chance.randint(2, 4))
        )
        yield " " + "".join(syllables)


def _base_size(vocab_size: int) -> int:
    return vocab_size - len(ADDED_TOKENS)


def _token(content: str) -> dict[str, Any]:
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
    }
