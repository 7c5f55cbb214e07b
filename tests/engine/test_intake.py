from __future__ import annotations

from concurrent.futures import Future

import msgspec

from server.engine.intake import Intake
from server.engine.request import Matcher
from server.messages import Grammar, GrammarKind
from tests.engine.fake import CountingMatcher, make_submit

GRAMMAR = Grammar(GrammarKind.REGEX, "a*")


class Queue:
    """A compiler that has not come to anything yet."""

    def __init__(self) -> None:
        self.matchers: list[Future[Matcher]] = []

    def compile(self, grammar: Grammar) -> Future[Matcher]:
        self.matchers.append(Future())
        return self.matchers[-1]


def test_nobody_compiles_what_nobody_waits_for() -> None:
    queue = Queue()
    intake = Intake(queue)
    for peer in (b"api-0", b"api-1"):
        for request_id in (1, 2):
            submit = msgspec.structs.replace(make_submit(request_id, [3]), grammar=GRAMMAR)
            intake.add(peer, submit, [])
    assert intake.cancel(b"api-0", 2)
    assert not intake.cancel(b"api-0", 2)
    intake.forget_peer(b"api-1")
    assert [matcher.cancelled() for matcher in queue.matchers] == [False, True, True, True]
    assert not list(intake.compiled())
    queue.matchers[0].set_result(CountingMatcher(3))
    assert [(i.peer, i.submit.id) for i in intake.compiled()] == [(b"api-0", 1)]
    assert not intake.busy
