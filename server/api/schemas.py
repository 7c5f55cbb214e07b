"""The requests, as OpenAI and vLLM name their fields; the API's documentation is made from these.

Which field is honoured, ignored or refused, and in which words, is in `parameters`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.media_schemas import AnyImageUrl, AnyVideoUrl, MediaOptions, PictureOptions
from server.api.schema_base import INT32_MAX, INT64_MAX, Model, at_most, expected, string_as_list
from server.api.tool_schemas import (
    TOOLS_MAX,
    AnyFunctionCall,
    AnyToolChoice,
    Function,
    ResponseFormat,
    StructuredOutputs,
    Tool,
)
from server.frontend.video_sampling import Sampling


def _text_as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is not None and not isinstance(value, list):
        raise expected("a string or an array of content parts")
    return value


class ContentPart(Model):
    """`text`, `input_text` and `output_text` carry text, `refusal` a refusal, `image_url` and
    `input_image` a picture, `video_url` a video (vLLM)."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: AnyImageUrl = None
    video_url: AnyVideoUrl = None


class CalledFunction(Model):
    name: str
    arguments: str = Field(description="JSON in a string, as answers carry it.")


class ToolCallMessage(Model):
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction


class Message(Model):
    role: str = Field(description="system, developer, user, assistant, tool or function")
    content: Annotated[
        Annotated[list[ContentPart], Field(fail_fast=True, max_length=4096)] | None,
        BeforeValidator(_text_as_parts, json_schema_input_type=str | list[ContentPart] | None),
    ] = None
    name: str | None = None
    refusal: str | None = Field(None, description="Text of the assistant, behind its content.")
    tool_calls: (
        Annotated[list[ToolCallMessage], Field(fail_fast=True, max_length=TOOLS_MAX)] | None
    ) = None
    function_call: CalledFunction | None = Field(None, description="Older form of tool_calls.")
    tool_call_id: str | None = None
    prefix: bool | None = Field(
        None, description="On the last message: continue it, as continue_final_message does."
    )

    @property
    def calls(self) -> list[CalledFunction]:
        """Of tools, old and new fields alike."""
        calls = [call.function for call in self.tool_calls or ()]
        return calls if self.function_call is None else [*calls, self.function_call]


class StreamOptions(Model):
    include_usage: bool | None = Field(None, description="Send usage in a last chunk.")
    continuous_usage_stats: bool | None = Field(
        None, description="With include_usage: send the usage so far in every chunk (vLLM)."
    )


Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
BIASES_MAX = 1024
TOP_LOGPROBS_MAX = 20


class GenerationRequest(Model):
    """What every request for generated text may say, whatever its prompt looks like."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token.")
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX, description="0 and -1: all (vLLM).")
    min_p: float | None = Field(None, ge=0, le=1, description="(vLLM)")
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="Over generated tokens only (vLLM)."
    )
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    stop: Annotated[
        Annotated[list[str], Field(fail_fast=True)] | None,
        BeforeValidator(string_as_list, json_schema_input_type=str | list[str] | None),
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
    logit_bias: (
        Annotated[dict[str, Bias], Field(max_length=BIASES_MAX), at_most(BIASES_MAX)] | None
    ) = Field(None, description="Token ids, and what is added to their logits.")
    min_tokens: int | None = Field(
        None, ge=0, le=INT32_MAX, description="No stop token is drawn before so many (vLLM)."
    )
    bad_words: Annotated[list[str], Field(fail_fast=True, max_length=128)] | None = Field(
        None, description="Texts that are never written (vLLM)."
    )
    allowed_token_ids: (
        Annotated[list[int], Field(fail_fast=True, min_length=1, max_length=2**17)] | None
    ) = Field(None, description="The only tokens that are drawn (vLLM).")
    prompt_logprobs: int | None = Field(
        None, ge=0, le=TOP_LOGPROBS_MAX, description="Log probabilities of the prompt (vLLM)."
    )
    include_stop_str_in_output: bool | None = Field(
        None, description="The stop string that ended the answer is part of its text (vLLM)."
    )
    skip_special_tokens: bool | None = Field(
        None, description="false writes control tokens by name (vLLM)."
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description="Log probabilities name tokens as token_id:N (vLLM)."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the answer must match (vLLM)."
    )
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    priority: int | None = Field(
        None, ge=-INT32_MAX, le=INT32_MAX, description="Lower goes first (vLLM)."
    )
    cache_salt: str | None = Field(
        None, min_length=1, max_length=256, description="Separates prefix caches (vLLM)."
    )
    request_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Becomes part of the id (vLLM)."
    )
    metadata: Annotated[dict[str, str], Field(max_length=16), at_most(16)] | None = None

    @property
    def scored_alternatives(self) -> int | None:
        """How many of the likeliest tokens to report beside each drawn one; None for no report."""
        return None


class ChatRequest(GenerationRequest):
    """A chat completion. OpenAI has no field whose description ends in (vLLM)."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=2048)]
    max_completion_tokens: int | None = Field(
        None, ge=1, description="Longest answer in tokens. Default: the room left in the context."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Older name of max_completion_tokens, which wins."
    )
    mm_processor_kwargs: PictureOptions | None = Field(
        None, description="How several pictures are laid out in the prompt (vLLM's name)."
    )
    media_io_kwargs: MediaOptions | None = Field(
        None, description="How frames are taken of videos (vLLM's name)."
    )
    logprobs: bool | None = Field(None, description="Report log probabilities of the answer.")
    top_logprobs: int | None = Field(None, ge=0, le=TOP_LOGPROBS_MAX)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=TOOLS_MAX)] | None = None
    tool_choice: AnyToolChoice = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(fail_fast=True, max_length=TOOLS_MAX)] | None = (
        Field(None, description="Older form of tools.")
    )
    function_call: AnyFunctionCall = Field(None, description="Older form of tool_choice.")
    echo: bool | None = Field(
        None, description="The answer repeats the last message of the assistant first (vLLM)."
    )
    add_generation_prompt: bool | None = Field(
        None, description="false leaves out the header of the answer's message (vLLM)."
    )
    continue_final_message: bool | None = Field(
        None, description="The answer goes on with the last message (vLLM)."
    )
    modalities: Annotated[list[str], Field(fail_fast=True)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    verbosity: Literal["low", "medium", "high"] | None = None

    @property
    def scored_alternatives(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def sampling_of_videos(self) -> Sampling:
        options = self.media_io_kwargs and self.media_io_kwargs.video
        return options.sampling if options else Sampling()

    @property
    def continues(self) -> bool:
        """Whether the answer goes on with the last message."""
        return bool(self.continue_final_message or self.messages[-1].prefix)
