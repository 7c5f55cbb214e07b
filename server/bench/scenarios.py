"""What is asked: an endless stream of chat requests, made up from a seed.

A scenario makes a request when one is due, so the same seed gives the same requests in the same
order whatever the load. Conversations go on when their last answer is there.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from server.bench.pictures import picture_url
from server.bench.plan import Run, ScenarioName

Message = dict[str, Any]

WORDS = re.findall(
    r"\w+",
    """
    time year people way day man thing woman life child world school state family student group
    country problem hand part place case week company system program question work number night
    point home water room mother area money story fact month lot right study book eye job word
    business issue side kind head house service friend father power hour game line end member law
    car city name team minute idea body information back parent face level office door health art
    war history party result change morning reason research girl guy moment air teacher force
    """,
)

PROMPT_TOKENS: dict[ScenarioName, int] = {"text": 128, "long": 3000, "json": 64}
"""Of scenarios whose text is not a question about a picture."""
QUESTION_TOKENS = 32

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 1, "maxItems": 4},
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "urgent": {"type": "boolean"},
    },
    "required": ["title", "tags", "score", "urgent"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is due."""

    messages: list[Message]
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of its body."""
    answered: Callable[[str], None] = lambda _: None
    """Told the answer's text."""


class Scenario:
    """Args:
    words_for: how many words make so many prompt tokens, as this server counts.
    """

    def __init__(self, run: Run, words_for: Callable[[int], int]) -> None:
        self._run = run
        self._rng = random.Random(f"{run.scenario} {run.seed}")
        tokens = run.prompt_tokens or PROMPT_TOKENS.get(run.scenario, QUESTION_TOKENS)
        prefix_words = words_for(run.prefix_tokens) if run.prefix_tokens else 0
        self._prefix = self._rng.choices(WORDS, k=prefix_words)
        self._words = max(0, words_for(tokens) - prefix_words)
        self._picture = picture_url(self._rng)
        self._waiting: deque[_Conversation] = deque()
        self._same = self._made() if run.identical else None

    def next(self) -> Job:
        return self._same or self._made()

    def _made(self) -> Job:
        match self._run.scenario:
            case "text" | "long":
                return Job([_said(self._text())])
            case "json":
                schema = {"name": "answer", "schema": SCHEMA}
                form = {"type": "json_schema", "json_schema": schema}
                return Job([_said(self._text())], {"response_format": form})
            case "picture":
                return Job([_said(self._text(), picture_url(self._rng))])
            case "picture-repeated":
                return Job([_said(self._text(), self._picture)])
            case "multi-turn":
                return self._turn()

    def _text(self) -> str:
        return " ".join([*self._prefix, *self._rng.choices(WORDS, k=self._words)])

    def _turn(self) -> Job:
        if self._waiting:
            conversation = self._waiting.popleft()
            conversation.messages.append(_said(self._text()))
        else:
            conversation = _Conversation([_said(self._text(), picture_url(self._rng))])
        return Job(
            list(conversation.messages), answered=lambda text: self._goes_on(conversation, text)
        )

    def _goes_on(self, conversation: _Conversation, answer: str) -> None:
        conversation.messages.append({"role": "assistant", "content": answer})
        conversation.turns += 1
        if conversation.turns < self._run.turns:
            self._waiting.append(conversation)


@dataclass(slots=True)
class _Conversation:
    messages: list[Message]
    turns: int = 0


def _said(text: str, picture: str | None = None) -> Message:
    if picture is None:
        return {"role": "user", "content": text}
    image = {"type": "image_url", "image_url": {"url": picture}}
    return {"role": "user", "content": [image, {"type": "text", "text": text}]}
