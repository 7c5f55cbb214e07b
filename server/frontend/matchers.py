"""A model's vocabulary as the grammar library wants to see it."""

from __future__ import annotations

from server.frontend.tokenizer import Tokenizer
from server.grammars import MatcherFactory, Vocabulary


def matcher_factory(tokenizer: Tokenizer, vocab_size: int) -> MatcherFactory:
    """
    Args:
        vocab_size: rows of the model's output.
    """
    ids = range(tokenizer.vocab_size)
    vocabulary = Vocabulary(
        token_bytes=[tokenizer.token_bytes(token_id) for token_id in ids],
        special_ids=[token_id for token_id in ids if tokenizer.is_special(token_id)],
        stop_ids=tokenizer.stop_ids,
        encode=tokenizer.encode_text,
    )
    return MatcherFactory(vocabulary, vocab_size)
