"""Choices before the engine has said anything about them."""

from __future__ import annotations

from server.api.answer import Choice
from server.api.schemas import GenerationRequest
from server.api.service import Service
from server.frontend.detokenizer import Detokenizer


def empty_choice(service: Service, request: GenerationRequest, *, goes_on: bool) -> Choice:
    """
    Args:
        goes_on: the answer goes on with a text of the client, so its first space is part of it.
    """
    keep_end = bool(request.include_stop_str_in_output)
    detokenizer = Detokenizer(
        service.tokenizer,
        request.stop or [],
        skip_special_tokens=request.skip_special_tokens is not False,
        drop_leading_space=not goes_on,
        keep_stop_string=keep_end,
    )
    return Choice(
        detokenizer,
        frozenset(request.stop_token_ids or []),
        end_ids=service.tokenizer.stop_ids,
        keep_end=keep_end,
    )
