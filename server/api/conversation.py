"""The messages of a request as turns of the template, and what they show in its order.

Calls of tools and their results are texts in the Hermes format: calls in the assistant's turn, the
results that follow it together in one turn of the user, since the model knows no other role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.api.explain import missing
from server.api.schemas import ContentPart, Message
from server.errors import ApiError, invalid
from server.frontend.template import ImagePart, Part, Role, TextPart, Turn, VideoPart
from server.frontend.tools import RESULT_BEGIN, RESULT_END, call_text
from server.frontend.video_sampling import Sampling

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
RESULT_ROLES = ("tool", "function")
TEXT_TYPES = ("text", "input_text", "output_text")
IMAGE_TYPES = ("image_url", "input_image")
VIDEO_TYPE = "video_url"
PART_TYPES = (*TEXT_TYPES, *IMAGE_TYPES, VIDEO_TYPE, "refusal")

VIDEOS_MAX = 4
"""In a conversation."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the client sent it."""

    url: str
    param: str
    """Where in the request it stands."""


@dataclass(frozen=True, slots=True)
class Video:
    """A video as the client sent it."""

    url: str
    param: str
    sampling: Sampling


Shown = Picture | Video


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]
    media: tuple[Shown, ...]
    system_suffix: str = ""
    """What the server adds to the system message."""

    @property
    def picture_count(self) -> int:
        """Pictures and frames of videos."""
        return sum(
            shown.sampling.segments if isinstance(shown, Video) else 1 for shown in self.media
        )

    @property
    def text_chars(self) -> int:
        parts = (part for turn in self.turns for part in turn.parts)
        texts = (len(part.text) for part in parts if isinstance(part, TextPart))
        return len(self.system_suffix) + sum(texts)


def read_conversation(messages: Sequence[Message], sampling: Sampling) -> Conversation:
    """
    Args:
        sampling: how frames are taken of each video.

    Raises:
        ApiError: 400 for a role or a part that this server does not know, or an empty one.
    """
    media: list[Shown] = []
    turns: list[Turn] = []
    result_before = False
    for index, message in enumerate(messages):
        turn = _read_message(message, f"messages[{index}]", media, sampling)
        is_result = message.role in RESULT_ROLES
        if is_result and result_before:
            turn = Turn(turn.role, (*turns.pop().parts, *turn.parts))
        turns.append(turn)
        result_before = is_result
    return Conversation(tuple(turns), tuple(media))


def _read_message(message: Message, param: str, media: list[Shown], sampling: Sampling) -> Turn:
    role = _read_role(message, param)
    calls = _read_calls(message, param)
    refusal = _read_refusal(message, param)
    if message.content is None and not calls and not refusal:
        raise missing(f"{param}.content")
    parts = [
        _read_part(part, f"{param}.content[{index}]", media, sampling)
        for index, part in enumerate(message.content or ())
    ]
    if message.role in RESULT_ROLES:
        return Turn(role, (TextPart(RESULT_BEGIN), *parts, TextPart(RESULT_END)))
    return Turn(role, (*parts, *map(TextPart, [*refusal, *calls])))


def _read_calls(message: Message, param: str) -> list[str]:
    """Calls of tools in a message of the assistant, as the model writes them."""
    if message.calls and message.role != "assistant":
        raise _unsupported("Calls of tools", "messages of this role", f"{param}.role")
    return [call_text(call.name, call.arguments) for call in message.calls]


def _read_refusal(message: Message, param: str) -> list[str]:
    """What the assistant refused to do, as it stands in an answer's own field."""
    if message.refusal and message.role != "assistant":
        raise _unsupported("Refusals", "messages of this role", f"{param}.role")
    return [message.refusal] if message.refusal else []


def _read_role(message: Message, param: str) -> Role:
    if message.role not in ROLES:
        raise invalid(
            f"Invalid value for '{param}.role': expected one of {', '.join(ROLES)}.",
            param=f"{param}.role",
        )
    return ROLES[message.role]


def _read_part(part: ContentPart, param: str, media: list[Shown], sampling: Sampling) -> Part:
    if part.type in TEXT_TYPES:
        return TextPart(_required(part.text, f"{param}.text"))
    if part.type == "refusal":
        return TextPart(_required(part.refusal, f"{param}.refusal"))
    if part.type in IMAGE_TYPES:
        return _read_picture(part, param, media)
    if part.type != VIDEO_TYPE:
        raise ApiError(
            400,
            "unsupported_value",
            f"Unsupported value: '{param}.type' must be one of {', '.join(PART_TYPES)}.",
            param=f"{param}.type",
        )
    if part.video_url is None:
        raise missing(f"{param}.video_url")
    if sum(isinstance(shown, Video) for shown in media) == VIDEOS_MAX:
        raise invalid(
            f"Invalid '{param}': a request may hold at most {VIDEOS_MAX} videos.", param=param
        )
    media.append(Video(part.video_url.url, f"{param}.video_url.url", sampling))
    return VideoPart(sampling.segments)


def _read_picture(part: ContentPart, param: str, media: list[Shown]) -> ImagePart:
    if part.image_url is None:
        raise missing(f"{param}.image_url")
    # input_image has its address as a plain string.
    suffix = "image_url.url" if part.type == "image_url" else "image_url"
    media.append(Picture(part.image_url.url, f"{param}.{suffix}"))
    return ImagePart()


def _required(text: str | None, param: str) -> str:
    if text is None:
        raise missing(param)
    return text


def _unsupported(what: str, where: str, param: str) -> ApiError:
    return ApiError(400, "unsupported_value", f"{what} are not supported in {where}.", param=param)
