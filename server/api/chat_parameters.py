"""The rows of `POST /v1/chat/completions`, in the order in which the documentation prints them."""

from __future__ import annotations

from functools import partial

from server.api.parameters import Parameter, Support, Table
from server.frontend.video_sampling import SEGMENTS_DEFAULT, SEGMENTS_MAX

honoured = partial(Parameter, support=Support.HONOURED)
ignored = partial(Parameter, support=Support.IGNORED)
refused = partial(Parameter, support=Support.REFUSED)


def also(name: str, same_as: str) -> Parameter:
    return Parameter(name, Support.HONOURED, f"Another name of `{same_as}`.", same_as=same_as)


SAMPLING = (
    honoured("temperature", meaning="0 takes the likeliest token."),
    honoured("top_p", meaning="Draws among the likeliest tokens that make up this probability."),
    honoured("top_k", meaning="Draws among so many of the likeliest tokens; 0 and -1: all."),
    honoured("min_p", meaning="Drops tokens less likely than this part of the likeliest."),
    honoured("presence_penalty", meaning="Over generated tokens."),
    honoured("frequency_penalty", meaning="Over generated tokens."),
    honoured(
        "repetition_penalty",
        meaning="Over generated tokens.",
        differs="vLLM counts the prompt's tokens too.",
    ),
    also("repeat_penalty", "repetition_penalty"),
    honoured("seed", meaning="Makes the answer repeatable; choice i uses seed + i."),
    honoured("logit_bias", meaning="Added to the logits of token ids."),
    honoured("allowed_token_ids", meaning="No other token is drawn."),
    honoured("bad_words", meaning="Texts whose last token is not drawn after the others."),
    honoured("min_tokens", meaning="No stop token is drawn before so many tokens."),
    also("min_new_tokens", "min_tokens"),
    honoured("n", meaning="Choices; they share the prompt and its pictures."),
)
ENDS = (
    honoured(
        "stop",
        meaning="A string or a list; the answer ends before the one that comes first.",
        differs="Up to 16 strings of 512 characters.",
    ),
    honoured("stop_token_ids", meaning="Tokens that end the answer and are no part of its text."),
    honoured("ignore_eos", meaning="Goes on after the model's end token."),
    honoured("include_stop_str_in_output", meaning="The stop string stays at the end of the text."),
    also("no_stop_trim", "include_stop_str_in_output"),
)
OUTPUT = (
    honoured("stream", meaning="Server-sent events."),
    honoured("stream_options.include_usage", meaning="Usage in a last chunk without choices."),
    honoured("stream_options.continuous_usage_stats", meaning="Usage so far in every chunk."),
    ignored(
        "stream_options.include_obfuscation",
        meaning="No padding is sent either way.",
        neutral=(False,),
    ),
    honoured(
        "prompt_logprobs",
        meaning="Log probabilities of the prompt's tokens, and so many alternatives.",
    ),
    honoured("return_token_ids", meaning="Ids of the prompt and of the answer."),
    honoured("return_tokens_as_token_ids", meaning="Log probabilities name tokens `token_id:N`."),
    honoured("skip_special_tokens", meaning="false writes control tokens by their names."),
    ignored(
        "spaces_between_special_tokens",
        meaning="Control tokens are written as they are.",
        neutral=(True, False),
    ),
    honoured("structured_outputs.json", meaning="A JSON schema, as object or as string."),
    honoured("structured_outputs.regex", meaning="A regular expression for the whole answer."),
    honoured("structured_outputs.choice", meaning="One of these texts."),
    honoured("structured_outputs.grammar", meaning="Lark's notation, or llama.cpp's GBNF."),
    honoured("structured_outputs.json_object", meaning="Any JSON object."),
    refused("structured_outputs.structural_tag", meaning="Send tools instead."),
    ignored(
        "structured_outputs.disable_any_whitespace",
        meaning="At most one space, or a newline and its indentation, stands between two tokens.",
    ),
    also("guided_json", "structured_outputs.json"),
    also("guided_regex", "structured_outputs.regex"),
    also("guided_choice", "structured_outputs.choice"),
    also("guided_grammar", "structured_outputs.grammar"),
    also("guided_json_object", "structured_outputs.json_object"),
    also("json_schema", "structured_outputs.json"),
    also("regex", "structured_outputs.regex"),
    also("ebnf", "structured_outputs.grammar"),
    also("grammar", "structured_outputs.grammar"),
)
SERVICE = (
    honoured("model", meaning="A name that `GET /v1/models` lists."),
    honoured(
        "service_tier",
        meaning="`flex` waits behind, `priority`, `fast` and `scale` go before others; the answer "
        "names the tier that was used.",
    ),
    honoured("priority", meaning="A place in the queue by number, lower first; beats the tier."),
    honoured("cache_salt", meaning="Requests share cached prompts only with an equal salt."),
    also("extra_key", "cache_salt"),
    honoured("request_id", meaning="Becomes part of the answer's `id`."),
    honoured("metadata", meaning="Returned with the answer."),
    ignored("user", meaning="No account is kept of users."),
    ignored("safety_identifier", meaning="No account is kept of users."),
    ignored("prompt_cache_key", meaning="Equal beginnings of prompts are found without it."),
    ignored("prompt_cache_retention", meaning="The cache keeps what fits."),
    ignored("prompt_cache_options", meaning="The cache keeps what fits."),
    ignored("store", meaning="Nothing is stored.", neutral=(False,)),
    ignored("prediction", meaning="Predicted outputs would change the speed only."),
    ignored("session_id", meaning="Requests do not depend on each other."),
    ignored("stream_interval", meaning="Every step is sent at once.", neutral=(1,)),
    ignored("vllm_xargs", meaning="There are no extensions.", neutral=({},)),
    ignored("kv_transfer_params", meaning="Caches are not moved between servers."),
)
NOT_HERE = (
    refused("use_beam_search", meaning="Tokens are drawn, not searched.", neutral=(False,)),
    refused("best_of", meaning="Send `n` and choose.", neutral=(1,)),
    refused("length_penalty", meaning="Belongs to beam search.", neutral=(1,)),
    refused("early_stopping", meaning="Belongs to beam search.", neutral=(False,)),
    refused("typical_p", meaning="There is no such filter.", neutral=(1,)),
    refused("mirostat", meaning="There is no such sampler.", neutral=(0,)),
    refused("dry_multiplier", meaning="There is no such penalty.", neutral=(0,)),
    refused("truncate_prompt_tokens", meaning="A cut prompt is no longer the one that was sent."),
    refused("logprob_token_ids", meaning="Send `top_logprobs`.", neutral=([],)),
    refused(
        "return_prompt_text", meaning="`return_token_ids` has the prompt's ids.", neutral=(False,)
    ),
    refused("lora_path", meaning="There are no adapters."),
)
GENERATION_ROWS = (*SAMPLING, *ENDS, *OUTPUT, *SERVICE, *NOT_HERE)
"""Fields of every endpoint that generates text, whatever its prompt looks like."""

ONE_SIZE = "This model sees a whole picture at one size, which is that of `low`."

RESPONSE_FORMAT = honoured(
    "response_format",
    meaning="`text`, `json_object` or `json_schema`.",
    differs="A schema is enforced with or without `strict`; its name and description are not "
    "shown to the model.",
)

CHAT_ONLY = (
    honoured("messages", meaning="See below."),
    honoured("messages.role", meaning="`developer` is `system`, `function` is `tool`."),
    honoured("messages.content", meaning="A string, or parts of text, pictures and videos."),
    honoured("messages.tool_calls", meaning="Written as the model writes them."),
    honoured("messages.function_call", meaning="An older form of `tool_calls`."),
    honoured("messages.refusal", meaning="Text of the assistant, behind its content."),
    honoured("messages.prefix", meaning="On the last message: the answer goes on with it."),
    honoured(
        "messages.content.type",
        meaning="`text`, `image_url`, their Responses names, or `video_url`.",
    ),
    honoured("messages.content.text", meaning="Text, never a control token."),
    honoured("messages.content.refusal", meaning="Text."),
    honoured("messages.content.image_url", meaning="An address, or an object with one."),
    honoured("messages.content.image_url.url", meaning="A `data:` URL."),
    ignored("messages.content.image_url.detail", meaning=ONE_SIZE, neutral=("auto", "low")),
    ignored("messages.content.detail", meaning=ONE_SIZE, neutral=("auto", "low")),
    honoured("messages.content.video_url", meaning="An address, or an object with one (vLLM)."),
    honoured("messages.content.video_url.url", meaning="A `data:` URL."),
    ignored("messages.name", meaning="The template has no place for names."),
    ignored("messages.tool_call_id", meaning="Results are read in the order of the messages."),
    ignored("messages.annotations", meaning="Not shown to the model.", neutral=([],)),
    honoured("max_completion_tokens", meaning="Default: the room left in the context."),
    honoured("max_tokens", meaning="Older name of `max_completion_tokens`, which wins."),
    honoured("logprobs", meaning="Log probabilities of the answer, with every token's true bytes."),
    honoured("top_logprobs", meaning="So many of the likeliest tokens too; needs `logprobs`."),
    RESPONSE_FORMAT,
    honoured(
        "tools",
        meaning="Functions, shown to the model in the Hermes format.",
        differs="Types other than `function` are refused.",
    ),
    honoured("tool_choice", meaning="`none`, `auto`, `required`, a function, or `allowed_tools`."),
    honoured("parallel_tool_calls", meaning="false: one call at most."),
    honoured("functions", meaning="Older form of `tools`; the answer has `function_call`."),
    honoured("function_call", meaning="Older form of `tool_choice`."),
    honoured("echo", meaning="The answer repeats the last message of the assistant first."),
    honoured("add_generation_prompt", meaning="false leaves out the header of the answer."),
    honoured("continue_final_message", meaning="The answer goes on with the last message."),
    also("prefix", "continue_final_message"),
    honoured(
        "mm_processor_kwargs.image_layout", meaning="`combined` puts all pictures in one place."
    ),
    honoured(
        "media_io_kwargs.video.num_segments",
        meaning=f"Frames taken of each video, 1 to {SEGMENTS_MAX}; {SEGMENTS_DEFAULT} if left out.",
    ),
    honoured(
        "media_io_kwargs.video.num_frames", meaning="vLLM's name of `num_segments`; send one."
    ),
    honoured(
        "media_io_kwargs.video.bound", meaning="The part of each video to look at, in seconds."
    ),
    ignored("media_io_kwargs.image", meaning="Pictures are read in one way.", neutral=({},)),
    ignored("documents", meaning="The template has no place for documents.", neutral=([],)),
    ignored("reasoning_effort", meaning="The model does not reason apart.", neutral=("none",)),
    ignored("thinking_token_budget", meaning="The model does not reason apart."),
    ignored("include_reasoning", meaning="The model does not reason apart."),
    ignored("separate_reasoning", meaning="The model does not reason apart."),
    ignored("verbosity", meaning="The model has no such setting."),
    honoured("modalities", meaning="`text` only."),
    refused("audio", meaning="The model has no sound."),
    refused("web_search_options", meaning="Nothing is searched."),
    refused("moderation", meaning="Nothing is moderated."),
    ignored("chat_template_kwargs", meaning="The model's template has no switches.", neutral=({},)),
    refused("chat_template", meaning="Prompts are built from the model's own template only."),
)

CHAT = Table(
    "/v1/chat/completions",
    (*CHAT_ONLY, *GENERATION_ROWS),
)
