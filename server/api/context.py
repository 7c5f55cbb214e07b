"""Whether a conversation and its answer fit the context, and the arithmetic when they do not."""

from __future__ import annotations

from server.api.conversation import Conversation, Video
from server.api.schemas import ChatRequest
from server.errors import ApiError, context_length_exceeded, invalid
from server.limits import Limits

CERTAIN = 4
"""Pictures that are so many times too many are refused before there is a prompt; fewer cost little,
and their error can count all tokens."""


def check_chars(chars: int, limit: int, param: str) -> None:
    """Raises:
    ApiError: 400; the texts are longer than this server reads.
    """
    if chars > limit:
        raise invalid(
            f"Invalid '{param}': this server reads {limit} characters of text, but got {chars}.",
            param=param,
            code="string_above_max_length",
        )


def bound_output(limits: Limits, asked: int | None, room: int, choices: int, param: str) -> int:
    """Longest answer in tokens, of each choice.

    Args:
        asked: by the client, within the room; None where it does not say.
        room: in the context.
        param: where it says so.

    Raises:
        ApiError: 400; it asks for more than this server writes.
    """
    each, total = limits.max_output_tokens, limits.max_total_output_tokens
    if asked is None:
        return min(each or room, room, max(1, total // choices))
    if each is not None and asked > each:
        raise _too_many_tokens(param, f"{each} tokens in an answer, but got {asked}")
    if asked * choices > total:
        got = f"{choices} answers of {asked} tokens"
        raise _too_many_tokens(param, f"{total} tokens in all answers, but got {got}")
    return asked


def _too_many_tokens(param: str, what: str) -> ApiError:
    return invalid(
        f"Invalid '{param}': this server writes at most {what}.",
        param=param,
        code="integer_above_max_value",
    )


class ContextCheck:
    """
    Args:
        tokens_per_image: that each picture and each frame costs.
        token_chars_max: no token stands for more characters.
    """

    def __init__(self, tokens_per_image: int, token_chars_max: int) -> None:
        self._tokens_per_image = tokens_per_image
        self._token_chars_max = token_chars_max

    def tokens_at_least(self, conversation: Conversation) -> int:
        """What the prompt has by its mere size, before it costs anything to know more."""
        text = conversation.text_chars // self._token_chars_max
        return self.picture_tokens(conversation) + text

    def picture_tokens(self, conversation: Conversation) -> int:
        return conversation.picture_count * self._tokens_per_image

    def check_size(self, conversation: Conversation, max_model_len: int) -> None:
        """Raises:
        ApiError: 400; the prompt is far too long, whatever its exact length is.
        """
        text_tokens = self.tokens_at_least(conversation) - self.picture_tokens(conversation)
        if (
            text_tokens >= max_model_len
            or self.picture_tokens(conversation) >= CERTAIN * max_model_len
        ):
            text = f"{conversation.text_chars} characters of text"
            raise self._too_long(conversation, text, max_model_len)

    def room(
        self,
        request: ChatRequest,
        conversation: Conversation,
        prompt_tokens: int,
        max_model_len: int,
    ) -> int:
        """Longest answer in tokens.

        Raises:
            ApiError: 400; prompt and answer do not fit the context together.
        """
        asked = request.max_completion_tokens or request.max_tokens
        room = max_model_len - prompt_tokens
        if room < 1:
            text = f"{prompt_tokens - self.picture_tokens(conversation)} tokens of text"
            raise self._too_long(conversation, text, max_model_len, prompt_tokens)
        if asked is not None and asked > room:
            raise context_length_exceeded(
                max_model_len,
                f"However, you requested {prompt_tokens + asked} tokens ({prompt_tokens} in the "
                f"messages, {asked} in the completion). Please reduce the length of either.",
            )
        return room if asked is None else asked

    def _too_long(
        self,
        conversation: Conversation,
        text: str,
        max_model_len: int,
        prompt_tokens: int | None = None,
    ) -> ApiError:
        count, each = conversation.picture_count, self._tokens_per_image
        pictures = f"{count} pictures x {each} tokens = {count * each}" if count else ""
        parts = " and ".join(filter(None, (pictures, text)))
        total = "" if prompt_tokens is None else f"resulted in {prompt_tokens} tokens: "
        return context_length_exceeded(
            max_model_len,
            f"However, your messages {total or 'hold '}{parts}. {_advice(conversation)}",
        )


def _advice(conversation: Conversation) -> str:
    if any(isinstance(shown, Video) for shown in conversation.media):
        return (
            "Please take fewer frames ('media_io_kwargs.video.num_segments') or shorten the text."
        )
    return f"Please {'send fewer pictures or ' * bool(conversation.media)}shorten the messages."
