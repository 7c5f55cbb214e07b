"""The requests, as OpenAI and vLLM name their fields; the API's documentation is made from these.

Nothing is coerced: a number in a string is an error, an integer is a number. Null means absent for
every optional field. What may be written in two ways (a string or a list of parts, an address or an
object with one) is brought into the longer form first, so that an error's path is the client's own.
Unknown keys are kept for `validation` to judge.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

INT64_MAX = 2**63 - 1


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{what}", {"what": what})


def _url_as_object(value: Any) -> Any:
    if isinstance(value, str):
        return {"url": value}
    if value is not None and not isinstance(value, dict):
        raise _expected("a string or an object with a url")
    return value


def _text_as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is not None and not isinstance(value, list):
        raise _expected("a string or an array of content parts")
    return value


def _string_as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if value is not None and not isinstance(value, list):
        raise _expected("a string or an array of strings")
    return value


class ImageUrl(_Model):
    url: str = Field(description="data:image/...;base64,...")
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="Accepted; this model sees every picture at one size."
    )


class ContentPart(_Model):
    """`text`, `input_text` and `output_text` carry text, `refusal` a refusal, `image_url` and
    `input_image` a picture."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Annotated[
        ImageUrl | None, BeforeValidator(_url_as_object, json_schema_input_type=ImageUrl | str)
    ] = None


class Message(_Model):
    role: str = Field(description="system, developer, user or assistant")
    content: Annotated[
        Annotated[list[ContentPart], Field(fail_fast=True, max_length=4096)] | None,
        BeforeValidator(_text_as_parts, json_schema_input_type=str | list[ContentPart] | None),
    ] = None
    name: str | None = None


class StreamOptions(_Model):
    include_usage: bool | None = Field(None, description="Send usage in a last chunk.")
    continuous_usage_stats: bool | None = Field(
        None, description="With include_usage: send the usage so far in every chunk (vLLM)."
    )


class PictureOptions(_Model):
    image_layout: Literal["separate", "combined"] | None = Field(
        None,
        description="separate labels each of several pictures where it stands; combined puts all "
        "of them in front of the text, as one picture.",
    )


Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatRequest(_Model):
    """A chat completion. OpenAI has no field whose description ends in (vLLM)."""

    model: str
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=2048)]
    max_completion_tokens: int | None = Field(
        None, ge=1, description="Longest answer in tokens. Default: the room left in the context."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Older name of max_completion_tokens, which wins."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token.")
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1, description="0 and -1: all (vLLM).")
    min_p: float | None = Field(None, ge=0, le=1, description="(vLLM)")
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="Over generated tokens only (vLLM)."
    )
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    stop: Annotated[
        Annotated[list[str], Field(fail_fast=True)] | None,
        BeforeValidator(_string_as_list, json_schema_input_type=str | list[str] | None),
    ] = None
    stop_token_ids: Annotated[list[int], Field(fail_fast=True, max_length=128)] | None = Field(
        None, description="Tokens that end the answer and are not part of its text (vLLM)."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the end token (vLLM).")
    n: int | None = Field(None, ge=1, description="How many answers to generate.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = Field(
        None, description="Send the ids of the prompt and of the answer too (vLLM)."
    )
    mm_processor_kwargs: PictureOptions | None = Field(
        None, description="How several pictures are laid out in the prompt (vLLM's name)."
    )
