"""Where the fields of a translated request stand in the request that the client sent.

Endpoints that translate their body into a chat request keep these, so that an error about the chat
request names the client's own field, in `param` and in the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import ApiError


@dataclass(slots=True)
class ChatBody:
    """A chat request in the making."""

    fields: dict[str, Any]
    paths: dict[str, str]
    """By path in the chat request, the path in the client's."""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        return {**self.fields, "messages": self.messages}


def as_sent(failure: ApiError, paths: Mapping[str, str]) -> ApiError:
    """The failure with its path as the client knows it.

    Args:
        paths: by path in the chat request, the path in the client's; the longest that fits wins.
    """
    param = failure.param
    if param is None:
        return failure
    begins = [begin for begin in paths if _is_within(param, begin)]
    if not begins:
        return failure
    begin = max(begins, key=len)
    sent = paths[begin] + param.removeprefix(begin)
    message = failure.message.replace(f"'{begin}", f"'{paths[begin]}")
    return ApiError(failure.status, failure.code, message, param=sent, headers=failure.headers)


def _is_within(path: str, begin: str) -> bool:
    return path == begin or path.startswith((f"{begin}.", f"{begin}["))
