"""The events of one streamed answer: from what has arrived of it to the frames of its reply.

A failure ends the stream with the frames that the reply has for it, whatever failed, and never
disturbs whoever brought the news.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from server.api.access import ChatRecord
from server.api.answer import Answer
from server.api.reply import Reply
from server.api.responses import internal_error
from server.api.submission import Submission

log = logging.getLogger(__name__)


class Feed:
    """A `Source`."""

    def __init__(
        self, submission: Submission, answer: Answer, reply: Reply, record: ChatRecord
    ) -> None:
        self.ended = False
        self._submission = submission
        self._answer = answer
        self._reply = reply
        self._record = record

    @property
    def closing(self) -> bool:
        return self._submission.closing

    def listen(self, listener: Callable[[], None] | None) -> None:
        self._submission.listener = listener

    def begin(self) -> bytes:
        return self._guarded(self._reply.begin)

    def take(self) -> bytes:
        return self._guarded(self._take)

    def _take(self) -> bytes:
        frames = b""
        for index, delta in self._submission.take():
            self._record.take(index, delta)
            if news := self._answer.take(index, delta, self._submission.cancel):
                frames += self._reply.news(news)
        if self._submission.closing:
            self.ended = True
            failure = self._submission.failure
            if failure is None:
                return frames + self._reply.end()
            self._record.failure = failure.code
            return frames + self._reply.failure(failure)
        return frames

    def _guarded(self, make: Callable[[], bytes]) -> bytes:
        if self.ended:
            return b""
        try:
            return make()
        except Exception:
            log.exception("request %s failed while it was streamed", self._record.request_id)
            self.ended = True
            self._record.failure = internal_error().code
            return self._reply.failure(internal_error())
