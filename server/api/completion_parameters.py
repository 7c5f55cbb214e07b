"""The rows of `POST /v1/completions`, in the order in which the documentation prints them."""

from __future__ import annotations

from functools import partial

from server.api.chat_parameters import GENERATION_ROWS, RESPONSE_FORMAT
from server.api.parameters import Parameter, Support, Table

honoured = partial(Parameter, support=Support.HONOURED)
refused = partial(Parameter, support=Support.REFUSED)

ROWS = (
    honoured(
        "prompt",
        meaning="A text, texts, token ids, or lists of token ids.",
        differs="Control tokens in a text stay text; token ids are taken as they are.",
    ),
    honoured("max_tokens", meaning="Default: 16. With 0 nothing is generated."),
    honoured("logprobs", meaning="Log probabilities, and those of up to 5 alternatives."),
    honoured("echo", meaning="The prompt in front of the completion, with its log probabilities."),
    RESPONSE_FORMAT,
    refused("suffix", meaning="The model was not trained to fill in.", neutral=("",)),
    refused("prompt_logprobs", meaning="Send `echo` and `logprobs`."),
)
NAMES = {row.name for row in ROWS}

COMPLETIONS = Table(
    "/v1/completions",
    (*ROWS, *(row for row in GENERATION_ROWS if row.name not in NAMES)),
)
