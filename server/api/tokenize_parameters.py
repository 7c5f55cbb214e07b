"""The rows of `POST /tokenize` and `/detokenize`."""

from __future__ import annotations

from functools import partial

from server.api.chat_parameters import CHAT
from server.api.parameters import Parameter, Support, Table

honoured = partial(Parameter, support=Support.HONOURED)
ignored = partial(Parameter, support=Support.IGNORED)

OF_PROMPTS = (
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "add_generation_prompt",
    "continue_final_message",
    "prefix",
    "mm_processor_kwargs.image_layout",
    "chat_template",
)
"""Fields of a chat request, beside its messages, that its prompt depends on."""

MODEL = honoured("model", meaning="Default: the model that is served.")

TOKENIZE = Table(
    "/tokenize",
    (
        MODEL,
        honoured("prompt", meaning="A text; what looks like a control token in it stays text."),
        honoured("return_token_strs", meaning="The tokens' names too."),
        ignored("add_special_tokens", meaning="The model's tokenizer adds none."),
        *(
            row
            for row in CHAT.rows
            if row.name in OF_PROMPTS
            or row.name.partition(".")[0] in ("messages", "media_io_kwargs")
        ),
    ),
)
DETOKENIZE = Table("/detokenize", (MODEL, honoured("tokens", meaning="Token ids.")))
