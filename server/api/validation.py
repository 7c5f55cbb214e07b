"""Turns a decoded body into a request model, or into an error that names field, limit and remedy.

What is honoured, ignored or refused comes from the endpoint's `Table`; types and ranges from the
model; what remains is what two fields mean together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from server.api.chat_parameters import CHAT
from server.api.explain import ECHO_CHARS_MAX, explain
from server.api.parameters import Table
from server.api.schemas import ChatRequest, GenerationRequest
from server.errors import ApiError, invalid
from server.settings import Settings

STOP_CHARS_MAX = 512

Request = TypeVar("Request", bound=GenerationRequest)


def read_request(
    kind: type[Request],
    table: Table,
    body: Mapping[str, Any],
    names: Sequence[str],
    settings: Settings,
) -> Request:
    """Checks what all endpoints that generate text have in common.

    Args:
        names: of the model, as requests may give them.

    Raises:
        ApiError: 400, or 404 for a model that is not served.
    """
    renamed, sent = table.canonical(body)
    try:
        request = kind.model_validate(renamed)
    except ValidationError as error:
        raise explain(error, sent) from None
    if request.model not in names:
        raise model_not_found(request.model)
    check_fields(table, body, settings)
    _check_choices(request, settings)
    _check_stream_options(request)
    _check_stop(request.stop or [], settings.max_stop_strings)
    _check_logits(request, settings)
    return request


def check_fields(table: Table, body: Mapping[str, Any], settings: Settings) -> None:
    """Raises:
    ApiError: 400 for a field that is refused, or one that nobody knows where that is an error.
    """
    if (name := table.refused(body)) is not None:
        raise unsupported(name, table.by_name[name].meaning)
    if settings.strict_params and (name := table.unknown(body)) is not None:
        raise invalid(
            f"Unknown parameter: '{name[:ECHO_CHARS_MAX]}'.",
            param=name[:ECHO_CHARS_MAX],
            code="unknown_parameter",
        )


def parse_chat(body: Mapping[str, Any], names: Sequence[str], settings: Settings) -> ChatRequest:
    """Checks everything about a chat request that needs neither tokenizer nor pictures.

    Raises:
        ApiError: as `read_request`.
    """
    request = read_request(ChatRequest, CHAT, body, names, settings)
    if len(request.messages) > settings.max_messages:
        raise _too_many("messages", settings.max_messages, len(request.messages))
    if request.top_logprobs and not request.logprobs:
        raise invalid(
            "'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs"
        )
    if request.continues and request.add_generation_prompt:
        raise invalid(
            "'continue_final_message' and 'add_generation_prompt' cannot both be true.",
            param="add_generation_prompt",
        )
    if request.prompt_logprobs is not None and request.stream:
        raise invalid(
            "'prompt_logprobs' is only allowed when 'stream' is not true.", param="prompt_logprobs"
        )
    _check_video(request)
    for index, modality in enumerate(request.modalities or ()):
        if modality != "text":
            raise ApiError(
                400,
                "unsupported_value",
                "Unsupported value: this model answers in text only.",
                param=f"modalities[{index}]",
            )
    return request


def _check_video(request: ChatRequest) -> None:
    options = request.media_io_kwargs and request.media_io_kwargs.video
    if not options:
        return
    path = "media_io_kwargs.video"
    if options.num_frames not in (None, options.num_segments or options.num_frames):
        raise invalid(
            f"'{path}.num_segments' and '{path}.num_frames' mean the same. Send one of them.",
            param=f"{path}.num_frames",
        )
    if options.bound and options.bound[0] >= options.bound[1]:
        raise invalid(
            f"Invalid value for '{path}.bound': expected a begin and a later end, in seconds.",
            param=f"{path}.bound",
        )


def model_not_found(name: str) -> ApiError:
    return ApiError(
        404,
        "model_not_found",
        f"The model '{name[:ECHO_CHARS_MAX]}' does not exist here. GET /v1/models lists those "
        "that do.",
        param="model",
    )


def unsupported(name: str, reason: str) -> ApiError:
    return ApiError(
        400,
        "unsupported_parameter",
        f"Unsupported parameter: '{name}' is not supported by this server. {reason}",
        param=name,
    )


def _check_choices(request: GenerationRequest, settings: Settings) -> None:
    if (request.n or 1) > settings.max_choices:
        raise invalid(
            f"Invalid value for 'n': expected at most {settings.max_choices}, but got {request.n}.",
            param="n",
            code="integer_above_max_value",
        )


def _check_logits(request: GenerationRequest, settings: Settings) -> None:
    biases = len(request.logit_bias or ())
    if biases > settings.max_logit_biases:
        raise _too_many("logit_bias", settings.max_logit_biases, biases)
    limit = settings.max_top_logprobs
    counts = {"top_logprobs", "prompt_logprobs", "logprobs"} & type(request).model_fields.keys()
    for name in sorted(counts):
        asked = getattr(request, name)
        if asked is not None and not isinstance(asked, bool) and asked > limit:
            raise invalid(
                f"Invalid value for '{name}': expected at most {limit}, but got {asked}.",
                param=name,
                code="integer_above_max_value",
            )


def _too_many(name: str, limit: int, count: int) -> ApiError:
    return invalid(
        f"Invalid '{name}': expected at most {limit} entries, but got {count}.",
        param=name,
        code="array_above_max_length",
    )


def _check_stream_options(request: GenerationRequest) -> None:
    if request.stream_options is not None and not request.stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is true.",
            param="stream_options",
        )


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
