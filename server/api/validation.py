"""Turns a decoded body into a `ChatRequest`, or into an error that names field, limit and remedy.

A field that is not implemented and would change the answer is refused, never dropped; one that
would not is accepted and named in the `x-ignored-params` header of the response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from server.api.explain import ECHO_CHARS_MAX, explain
from server.api.schemas import ChatRequest
from server.errors import ApiError, invalid
from server.settings import Settings

STOP_CHARS_MAX = 512
IGNORED_NAMED_MAX = 32

UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "logprob_token_ids": ([],),
    "logit_bias": ({},),
    "modalities": ([], ["text"]),
    "audio": (),
    "web_search_options": (),
    "moderation": (),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json_object": (False,),
    "regex": (),
    "ebnf": (),
    "json_schema": (),
    "grammar": (),
    "min_tokens": (0,),
    "min_new_tokens": (0,),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "include_stop_str_in_output": (False,),
    "no_stop_trim": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "use_beam_search": (False,),
    "best_of": (1,),
    "length_penalty": (1,),
    "repeat_penalty": (1,),
    "dry_multiplier": (0,),
    "mirostat": (0,),
    "typical_p": (1,),
    "echo": (False,),
    "prefix": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "truncate_prompt_tokens": (),
    "return_tokens_as_token_ids": (False,),
    "return_prompt_text": (False,),
    "lora_path": (),
}
"""Fields that would change the answer, and the values besides null that leave it as it is."""


def parse_chat(body: Mapping[str, Any], names: Sequence[str], settings: Settings) -> ChatRequest:
    """Checks everything about a chat request that needs neither tokenizer nor pictures.

    Args:
        names: of the model, as requests may give them.

    Raises:
        ApiError: 400, or 404 for a model that is not served.
    """
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise explain(error) from None
    if request.model not in names:
        raise model_not_found(request.model)
    _check_supported(request)
    _check_limits(request, settings)
    return request


def ignored_names(request: ChatRequest) -> list[str]:
    """Top-level fields that were sent and have no effect, as far as a header can name them."""
    extra = request.model_extra or {}
    names = [name for name, value in extra.items() if value is not None]
    return [name for name in names if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name)][
        :IGNORED_NAMED_MAX
    ]


def model_not_found(name: str) -> ApiError:
    return ApiError(
        404,
        "model_not_found",
        f"The model '{name[:ECHO_CHARS_MAX]}' does not exist here. GET /v1/models lists those "
        "that do.",
        param="model",
    )


def _check_supported(request: ChatRequest) -> None:
    extra = request.model_extra or {}
    for name, harmless in UNSUPPORTED.items():
        value = extra.get(name)
        if value is not None and value not in harmless:
            raise ApiError(
                400,
                "unsupported_parameter",
                f"Unsupported parameter: '{name}' is not supported by this server. Leave it out.",
                param=name,
            )


def _check_limits(request: ChatRequest, settings: Settings) -> None:
    if (request.n or 1) > settings.max_choices:
        raise invalid(
            f"Invalid value for 'n': expected at most {settings.max_choices}, but got {request.n}.",
            param="n",
            code="integer_above_max_value",
        )
    if request.stream_options is not None and not request.stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is true.",
            param="stream_options",
        )
    _check_stop(request.stop or [], settings.max_stop_strings)


def _check_stop(stop: list[str], strings_max: int) -> None:
    if len(stop) > strings_max:
        raise invalid(
            f"Invalid 'stop': expected at most {strings_max} strings, but got {len(stop)}.",
            param="stop",
            code="array_above_max_length",
        )
    for index, text in enumerate(stop):
        if not 0 < len(text) <= STOP_CHARS_MAX:
            raise invalid(
                f"Invalid 'stop': each string must have 1 to {STOP_CHARS_MAX} characters.",
                param=f"stop[{index}]",
                code="string_above_max_length" if text else "empty_string",
            )
