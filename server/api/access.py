"""The access log: one line per chat request when it is over, with numbers and never with text."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from server.api.answer import Answer

log = logging.getLogger("server.access")


@dataclass(slots=True)
class ChatRecord:
    """What is known of a chat request so far."""

    request_id: str
    kind: str = "chat"
    """What was asked for, as the line begins."""
    began_at: float = field(default_factory=time.monotonic)
    answer: Answer | None = None
    failure: str | None = None
    """Error code, when it ended by one."""

    def write(self, status: int) -> None:
        """Writes the line. 499 stands for a client that went away before the response began."""
        total_ms = round((time.monotonic() - self.began_at) * 1000)
        log.info(
            "%s %s %d %s total=%dms end=%s",
            self.kind,
            self.request_id,
            status,
            self._numbers(),
            total_ms,
            self._end(),
        )

    def _numbers(self) -> str:
        answer = self.answer
        if answer is None:
            return "prompt=- image=- cached=- output=- ttft=-"
        ttft = "-"
        if answer.first_token_at is not None:
            ttft = f"{round((answer.first_token_at - self.began_at) * 1000)}ms"
        return (
            f"prompt={answer.prompt_tokens} image={answer.image_tokens} "
            f"cached={answer.cached_tokens} output={answer.output_tokens} ttft={ttft}"
        )

    def _end(self) -> str:
        if self.failure is not None:
            return self.failure
        reasons = [choice.finish_reason for choice in self.answer.choices] if self.answer else []
        return ",".join(reason or "disconnected" for reason in reasons) or "disconnected"
