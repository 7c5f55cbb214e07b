"""The messages of a request as turns of the template, and the pictures in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.api.schemas import ContentPart, Message
from server.errors import ApiError, invalid
from server.frontend.template import ImagePart, Role, TextPart, Turn

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
TEXT_TYPES = ("text", "input_text", "output_text")
IMAGE_TYPES = ("image_url", "input_image")
PART_TYPES = (*TEXT_TYPES, *IMAGE_TYPES, "refusal")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the client sent it."""

    url: str
    param: str
    """Where in the request it stands."""


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]
    pictures: tuple[Picture, ...]

    @property
    def text_chars(self) -> int:
        parts = (part for turn in self.turns for part in turn.parts)
        return sum(len(part.text) for part in parts if isinstance(part, TextPart))


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Raises:
    ApiError: 400 for a role or a part that this server does not know, or an empty one.
    """
    pictures: list[Picture] = []
    turns = [
        _read_message(message, f"messages[{index}]", pictures)
        for index, message in enumerate(messages)
    ]
    return Conversation(tuple(turns), tuple(pictures))


def _read_message(message: Message, param: str, pictures: list[Picture]) -> Turn:
    role = _read_role(message, param)
    if message.content is None:
        raise _missing(f"{param}.content")
    parts = [
        _read_part(part, f"{param}.content[{index}]", pictures)
        for index, part in enumerate(message.content)
    ]
    return Turn(role, tuple(parts))


def _read_role(message: Message, param: str) -> Role:
    if message.role in ("tool", "function"):
        raise _unsupported(f"Messages with the role '{message.role}'", f"{param}.role")
    if message.role not in ROLES:
        raise invalid(
            f"Invalid value for '{param}.role': expected one of {', '.join(ROLES)}.",
            param=f"{param}.role",
        )
    for name in ("tool_calls", "function_call"):
        if (message.model_extra or {}).get(name):
            raise _unsupported(f"'{name}' in messages", f"{param}.{name}")
    return ROLES[message.role]


def _read_part(part: ContentPart, param: str, pictures: list[Picture]) -> TextPart | ImagePart:
    if part.type in TEXT_TYPES:
        return TextPart(_required(part.text, f"{param}.text"))
    if part.type == "refusal":
        return TextPart(_required(part.refusal, f"{param}.refusal"))
    if part.type not in IMAGE_TYPES:
        raise ApiError(
            400,
            "unsupported_value",
            f"Unsupported value: '{param}.type' must be one of {', '.join(PART_TYPES)}.",
            param=f"{param}.type",
        )
    if part.image_url is None:
        raise _missing(f"{param}.image_url")
    # input_image has its address as a plain string.
    suffix = "image_url.url" if part.type == "image_url" else "image_url"
    pictures.append(Picture(part.image_url.url, f"{param}.{suffix}"))
    return ImagePart()


def _required(text: str | None, param: str) -> str:
    if text is None:
        raise _missing(param)
    return text


def _missing(param: str) -> ApiError:
    return invalid(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def _unsupported(what: str, param: str) -> ApiError:
    return ApiError(400, "unsupported_value", f"{what} are not supported.", param=param)
