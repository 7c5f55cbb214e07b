"""The rows of `POST /v1/messages`, in the order in which the documentation prints them."""

from __future__ import annotations

from functools import partial

from server.api.parameters import Parameter, Support, Table

honoured = partial(Parameter, support=Support.HONOURED)
ignored = partial(Parameter, support=Support.IGNORED)
refused = partial(Parameter, support=Support.REFUSED)

MESSAGES = Table(
    "/v1/messages",
    (
        honoured("model", meaning="A name that `GET /v1/models` lists."),
        honoured("messages", meaning="Turns of `user` and `assistant`."),
        honoured("messages.role", meaning="`user` or `assistant`."),
        honoured(
            "messages.content",
            meaning="A string or blocks. An answer goes on with a last text of the assistant.",
        ),
        honoured(
            "messages.content.type",
            meaning="`text`, `image`, `tool_use`, `tool_result`; `thinking` is skipped.",
        ),
        honoured("messages.content.text", meaning="Text, never a control token."),
        honoured("messages.content.source", meaning="A picture in `base64`."),
        honoured("messages.content.id", meaning="Of a call."),
        honoured("messages.content.name", meaning="Of the called function."),
        honoured("messages.content.input", meaning="Arguments of a call."),
        honoured("messages.content.tool_use_id", meaning="Of the call that has this result."),
        honoured("messages.content.content", meaning="The result of a call."),
        ignored("messages.content.is_error", meaning="The result says it.", neutral=(False,)),
        ignored("messages.content.cache_control", meaning="Equal beginnings are found anyway."),
        ignored("messages.content.citations", meaning="Nothing is cited."),
        ignored("messages.content.thinking", meaning="Thoughts of other models are skipped."),
        ignored("messages.content.signature", meaning="Thoughts of other models are skipped."),
        honoured("system", meaning="A string or text blocks."),
        honoured("max_tokens", meaning="Longest answer in tokens; required."),
        honoured("stop_sequences", meaning="The answer ends before the one that comes first."),
        honoured("stream", meaning="Server-sent events."),
        honoured("temperature", meaning="0 takes the likeliest token; default 1."),
        honoured("top_p", meaning="Draws among the likeliest tokens of this probability."),
        honoured("top_k", meaning="Draws among so many of the likeliest tokens."),
        honoured(
            "tools",
            meaning="Functions.",
            differs="Tools with a type of their own (search, code, files) are refused.",
        ),
        honoured("tool_choice", meaning="`auto`, `any`, `tool` or `none`."),
        honoured("output_config.format", meaning="A JSON schema that the answer must match."),
        ignored("output_config.effort", meaning="The model does not reason apart."),
        ignored("metadata", meaning="No account is kept of users."),
        ignored("service_tier", meaning="There is one tier.", neutral=("auto", "standard_only")),
        ignored("speed", meaning="There is one speed.", neutral=("standard",)),
        ignored("cache_control", meaning="Equal beginnings are found anyway."),
        ignored(
            "thinking",
            meaning="The model does not reason apart.",
            neutral=({"type": "disabled"},),
        ),
        ignored("context_management", meaning="Nothing is cut away.", neutral=({},)),
        refused("container", meaning="Nothing is executed here."),
        refused("mcp_servers", meaning="No other servers are asked.", neutral=([],)),
    ),
)
