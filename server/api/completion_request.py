"""The body of `/v1/completions`: its fields, and what its prompt may look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from server.api.schemas import GenerationRequest
from server.api.tool_schemas import ResponseFormat
from server.errors import ApiError, invalid

PROMPTS_MAX = 2048
TOKENS_MAX_DEFAULT = 16
LOGPROBS_MAX = 5

TEXT = {"type": "string"}
IDS = {"type": "array", "items": {"type": "integer"}}
PROMPT_SCHEMA = {
    "anyOf": [TEXT, {"type": "array", "items": TEXT}, IDS, {"type": "array", "items": IDS}]
}


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """One prompt."""

    param: str
    """Where in the request it stands."""
    content: str | list[int]
    """A text, or token ids that are taken as they are."""


class CompletionRequest(GenerationRequest):
    """A completion of texts or token ids."""

    prompt: Annotated[Any, WithJsonSchema(PROMPT_SCHEMA)] = Field(
        description="A text, a list of texts, token ids, or a list of lists of token ids. What "
        "looks like a control token in a text stays text; token ids are taken as they are."
    )
    max_tokens: int | None = Field(
        None,
        ge=0,
        description=f"Longest completion in tokens. Default: {TOKENS_MAX_DEFAULT}. With 0 nothing "
        "is generated, which makes sense with echo and logprobs.",
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=LOGPROBS_MAX,
        description="Send log probabilities of the tokens and of so many of the likeliest.",
    )
    response_format: ResponseFormat | None = Field(None, description="As in chats (vLLM).")
    echo: bool | None = Field(None, description="Put the prompt in front of the completion.")

    @property
    def scored_alternatives(self) -> int | None:
        return self.logprobs

    @property
    def tokens_max(self) -> int:
        return TOKENS_MAX_DEFAULT if self.max_tokens is None else self.max_tokens


def read_prompts(value: Any) -> list[TextPrompt]:
    """The prompts in `prompt`, one or many.

    Raises:
        ApiError: 400 that names the entry that is wrong or empty.
    """
    if not isinstance(value, list) or (value and type(value[0]) is int):
        return [_prompt(value, "prompt", "a string, an array of strings or of token ids")]
    _check_not_empty(value, "prompt")
    if len(value) > PROMPTS_MAX:
        raise invalid(
            f"Invalid 'prompt': expected at most {PROMPTS_MAX} prompts, but got {len(value)}.",
            param="prompt",
            code="array_above_max_length",
        )
    return [
        _prompt(entry, f"prompt[{index}]", "a string or an array of token ids")
        for index, entry in enumerate(value)
    ]


def _prompt(value: Any, param: str, expected: str) -> TextPrompt:
    if not isinstance(value, str | list):
        raise _wrong_type(param, expected)
    _check_not_empty(value, param)
    return TextPrompt(param, value if isinstance(value, str) else _token_ids(value, param))


def _token_ids(value: list[Any], param: str) -> list[int]:
    for index, token_id in enumerate(value):
        if type(token_id) is not int:
            raise _wrong_type(f"{param}[{index}]", "an integer")
    return value


def _check_not_empty(value: str | list[Any], param: str) -> None:
    if not value:
        code = "empty_string" if isinstance(value, str) else "empty_array"
        raise invalid(f"Invalid '{param}': it must not be empty.", param=param, code=code)


def _wrong_type(param: str, expected: str) -> ApiError:
    return invalid(
        f"Invalid type for '{param}': expected {expected}.", param=param, code="invalid_type"
    )
