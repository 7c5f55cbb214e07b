"""The messages of a request as turns of the template, and the pictures in their order.

Calls of tools and their results are texts in the Hermes format: calls in the assistant's turn, the
results that follow it together in one turn of the user, since the model knows no other role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.api.explain import missing
from server.api.schemas import ContentPart, Message
from server.errors import ApiError, invalid
from server.frontend.template import ImagePart, Role, TextPart, Turn
from server.frontend.tools import RESULT_BEGIN, RESULT_END, call_text

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
    system_suffix: str = ""
    """What the server adds to the system message."""

    @property
    def text_chars(self) -> int:
        parts = (part for turn in self.turns for part in turn.parts)
        texts = (len(part.text) for part in parts if isinstance(part, TextPart))
        return len(self.system_suffix) + sum(texts)


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Raises:
    ApiError: 400 for a role or a part that this server does not know, or an empty one.
    """
    pictures: list[Picture] = []
    turns: list[Turn] = []
    result_before = False
    for index, message in enumerate(messages):
        turn = _read_message(message, f"messages[{index}]", pictures)
        is_result = message.role in RESULT_ROLES
        if is_result and result_before:
            turn = Turn(turn.role, (*turns.pop().parts, *turn.parts))
        turns.append(turn)
        result_before = is_result
    return Conversation(tuple(turns), tuple(pictures))


def _read_message(message: Message, param: str, pictures: list[Picture]) -> Turn:
    role = _read_role(message, param)
    calls = _read_calls(message, param)
    if message.content is None and not calls:
        raise missing(f"{param}.content")
    parts = [
        _read_part(part, f"{param}.content[{index}]", pictures)
        for index, part in enumerate(message.content or ())
    ]
    if message.role in RESULT_ROLES:
        return Turn(role, (TextPart(RESULT_BEGIN), *parts, TextPart(RESULT_END)))
    return Turn(role, (*parts, *map(TextPart, calls)))


def _read_calls(message: Message, param: str) -> list[str]:
    """Calls of tools in a message of the assistant, as the model writes them."""
    calls = [call.function for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(message.function_call)
    if calls and message.role != "assistant":
        raise _unsupported("Calls of tools", "messages of this role", f"{param}.role")
    return [call_text(call.name, call.arguments) for call in calls]


def _read_role(message: Message, param: str) -> Role:
    if message.role not in ROLES:
        raise invalid(
            f"Invalid value for '{param}.role': expected one of {', '.join(ROLES)}.",
            param=f"{param}.role",
        )
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
        raise missing(f"{param}.image_url")
    # input_image has its address as a plain string.
    suffix = "image_url.url" if part.type == "image_url" else "image_url"
    pictures.append(Picture(part.image_url.url, f"{param}.{suffix}"))
    return ImagePart()


def _required(text: str | None, param: str) -> str:
    if text is None:
        raise missing(param)
    return text


def _unsupported(what: str, where: str, param: str) -> ApiError:
    return ApiError(400, "unsupported_value", f"{what} are not supported in {where}.", param=param)
