"""The rows of `POST /v1/responses`, in the order in which the documentation prints them."""

from __future__ import annotations

from functools import partial

from server.api.chat_parameters import GENERATION_ROWS, ONE_SIZE
from server.api.parameters import Parameter, Support, Table

honoured = partial(Parameter, support=Support.HONOURED)
ignored = partial(Parameter, support=Support.IGNORED)
refused = partial(Parameter, support=Support.REFUSED)

ROWS = (
    honoured(
        "input",
        meaning="A text, or items: `message`, `function_call`, `function_call_output`.",
        differs="`reasoning` items are skipped, other types refused.",
    ),
    honoured(
        "input.content.type",
        meaning="`input_text`, `input_image`, `output_text`, `refusal`, or their chat names.",
    ),
    honoured("input.content.text", meaning="Text, never a control token."),
    honoured("input.content.refusal", meaning="Text."),
    honoured("input.content.image_url", meaning="An address, or an object with one."),
    honoured("input.content.image_url.url", meaning="A `data:` URL."),
    ignored("input.content.image_url.detail", meaning=ONE_SIZE, neutral=("auto", "low")),
    ignored("input.content.detail", meaning=ONE_SIZE, neutral=("auto", "low")),
    ignored("input.content.annotations", meaning="Not shown to the model.", neutral=([],)),
    ignored("input.content.logprobs", meaning="Not shown to the model.", neutral=([],)),
    honoured("instructions", meaning="The system message; not taken over to the next response."),
    honoured(
        "previous_response_id",
        meaning="Goes on after a response that is still stored.",
        differs="Responses are stored in memory, within the limits of the settings.",
    ),
    honoured("store", meaning="Default: true."),
    honoured("max_output_tokens", meaning="Default: the room left in the context."),
    honoured("text.format", meaning="`text`, `json_object` or `json_schema`, always enforced."),
    ignored("text.verbosity", meaning="The model has no such setting."),
    honoured(
        "tools",
        meaning="Functions.",
        differs="Built-in tools (search, code, files, computer, mcp, pictures) are refused.",
    ),
    honoured("tool_choice", meaning="`none`, `auto`, `required`, a function, or `allowed_tools`."),
    honoured("parallel_tool_calls", meaning="false: one call at most."),
    honoured("include", meaning="`message.output_text.logprobs`; the others have nothing to add."),
    honoured(
        "top_logprobs",
        meaning="So many of the likeliest tokens, with `include`; without it no effect.",
    ),
    honoured("truncation", meaning="`auto` drops the oldest items of what is too long."),
    ignored("reasoning", meaning="The model does not reason apart."),
    ignored("max_tool_calls", meaning="There are no built-in tools to count."),
    ignored("context_management", meaning="Nothing is compacted.", neutral=([],)),
    refused("background", meaning="Answers are made while the client waits.", neutral=(False,)),
    refused("conversation", meaning="Send `previous_response_id`."),
    refused("prompt", meaning="There are no stored prompts."),
    refused("moderation", meaning="Nothing is moderated."),
    refused("n", meaning="A response has one answer.", neutral=(1,)),
    refused("prompt_logprobs", meaning="A response has no place for them."),
    refused("return_token_ids", meaning="A response has no place for them.", neutral=(False,)),
    ignored("stream_options.include_usage", meaning="The last event has the usage."),
    ignored("stream_options.continuous_usage_stats", meaning="The last event has the usage."),
    ignored("request_id", meaning="Ids of responses are the server's."),
)
NAMES = {row.name for row in ROWS}

RESPONSES = Table(
    "/v1/responses",
    (*ROWS, *(row for row in GENERATION_ROWS if row.name not in NAMES)),
)
