"""The engine over the real wire, with a runner that computes nothing real."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from server.engine.loop import Engine
from server.engine.plan import OutOfMemoryError
from server.engine.request import Matcher
from server.engine.scheduler import Scheduler
from server.engine.step_budget import StepBudget
from server.in_flight import fingerprint
from server.ipc import EngineEndpoint, engine_address
from server.messages import (
    Cancel,
    Delta,
    FinishReason,
    Grammar,
    GrammarKind,
    Hello,
    Outputs,
    Ready,
    StepReport,
    Submit,
    ToApi,
    ToEngine,
)
from tests.engine.fake import (
    CountingMatcher,
    FakeRunner,
    expected_tokens,
    limits,
    make_submit,
)

READY = Ready(
    max_model_len=64,
    max_num_seqs=4,
    kv_blocks=16,
    kv_block_size=4,
    step_token_budget=16,
    dtype="none",
    device="none",
    ranks=1,
)


class Client:
    """An API process, as far as the engine can tell."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path, name: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = 5000
        self._socket.identity = name.encode()
        self._socket.connect(engine_address(run_dir))

    def send(self, message: ToEngine, *pictures: bytes) -> None:
        self._socket.send_multipart([msgspec.msgpack.encode(message), *pictures])

    def receive(self) -> ToApi:
        frame = self._socket.recv()
        message: ToApi = msgspec.msgpack.decode(frame, type=Ready | Outputs)
        return message

    def poll(self) -> bool:
        return bool(self._socket.poll(50))

    def close(self) -> None:
        self._socket.close()


class CountingCompiler:
    """Takes the text of a grammar for its size, and its time."""

    def compile(self, grammar: Grammar) -> Future[Matcher]:
        matcher: Future[Matcher] = Future()

        def finish() -> None:
            if not matcher.set_running_or_notify_cancel():
                return
            try:
                matcher.set_result(CountingMatcher(int(grammar.text)))
            except ValueError as error:
                matcher.set_exception(error)

        threading.Timer(0.05, finish).start()
        return matcher


class Setting:
    def __init__(self, run_dir: Path, budget: StepBudget | None = None) -> None:
        self.run_dir = run_dir
        self.runner = FakeRunner(limits(step_token_budget=512 if budget else 16))
        self.scheduler = Scheduler(self.runner.limits)
        self.endpoint = EngineEndpoint(run_dir)
        self.engine = Engine(
            self.runner,
            self.endpoint,
            self.scheduler,
            CountingCompiler(),
            READY,
            budget=budget,
            check_integrity=True,
            note_in_flight=lambda fingerprints: self.noted.append(list(fingerprints)),
        )
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.clients: list[Client] = []
        self.noted: list[list[bytes]] = []

    def connect(self, name: str) -> Client:
        client = Client(self.context, self.run_dir, name)
        self.clients.append(client)
        client.send(Hello())
        while True:  # news for an earlier process of that name may come first
            self.engine.step(wait_s=0.01)
            if client.poll() and client.receive() == READY:
                return client

    def answers(self, client: Client, count: int = 1) -> dict[int, list[Delta]]:
        """Deltas of the client until `count` requests have ended."""
        deltas: dict[int, list[Delta]] = {}
        ended = 0
        while ended < count:
            self.engine.step(wait_s=1)
            while client.poll():
                message = client.receive()
                assert isinstance(message, Outputs)
                for delta in message.deltas:
                    deltas.setdefault(delta.id, []).append(delta)
                    ended += delta.finish is not None
        return deltas

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.context.term()
        self.endpoint.close()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    setting.close()


def tokens(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


def test_a_request_with_a_picture_is_answered(setting: Setting) -> None:
    client = setting.connect("api-0")
    submit = make_submit(5, range(9), images=[(2, b"aaaa")])
    client.send(submit, b"aaaa")
    deltas = setting.answers(client)[5]
    assert tokens(deltas) == expected_tokens(submit, [b"aaaa"])
    assert deltas[-1].finish is FinishReason.LENGTH


def test_each_client_gets_its_own_news(setting: Setting) -> None:
    first, second = setting.connect("api-0"), setting.connect("api-1")
    submits = make_submit(1, range(5)), make_submit(1, range(7))
    first.send(submits[0])
    second.send(submits[1])
    assert tokens(setting.answers(first)[1]) == expected_tokens(submits[0], [])
    assert tokens(setting.answers(second)[1]) == expected_tokens(submits[1], [])


def test_cancel_is_answered_and_frees_everything(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(make_submit(1, range(5), max_tokens=50))
    setting.engine.step(wait_s=5)
    client.send(Cancel(1))
    deltas = setting.answers(client)[1]
    assert deltas[-1].finish is FinishReason.CANCELLED
    setting.engine.step(wait_s=0)
    assert setting.scheduler.idle


def test_a_process_that_comes_back_is_rid_of_its_old_requests(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(make_submit(1, range(5), max_tokens=50))
    setting.engine.step(wait_s=5)
    client.close()
    again = setting.connect("api-0")
    submit: Submit = make_submit(1, range(6))
    again.send(submit)
    assert tokens(setting.answers(again)[1]) == expected_tokens(submit, [])


def with_grammar(submit: Submit, text: str) -> Submit:
    return msgspec.structs.replace(submit, grammar=Grammar(GrammarKind.REGEX, text))


def test_a_grammar_is_compiled_while_others_run(setting: Setting) -> None:
    client = setting.connect("api-0")
    constrained, free = make_submit(1, range(5), max_tokens=9), make_submit(2, range(7))
    client.send(with_grammar(constrained, "6"))
    client.send(free)
    deltas = setting.answers(client, count=2)
    assert tokens(deltas[1]) == expected_tokens(constrained, [], grammar_size=6)
    assert tokens(deltas[2]) == expected_tokens(free, [])
    assert next(iter(deltas)) == 2, "nobody waits for a grammar"


def test_what_is_no_grammar_ends_its_request(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(with_grammar(make_submit(1, range(5)), "none"))
    (delta,) = setting.answers(client)[1]
    assert delta.finish is FinishReason.ERROR


def test_a_request_can_be_cancelled_while_its_grammar_is_compiled(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(with_grammar(make_submit(1, range(5)), "6"))
    client.send(Cancel(1))
    (delta,) = setting.answers(client)[1]
    assert delta.finish is FinishReason.CANCELLED
    assert setting.scheduler.idle


def test_a_request_that_cannot_run_is_answered_while_idle(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(make_submit(1, []))
    (delta,) = setting.answers(client)[1]
    assert delta.finish is FinishReason.ERROR


def test_a_step_without_memory_costs_whoever_caused_it(setting: Setting) -> None:
    client = setting.connect("api-0")
    setting.runner.fails_at[0] = True
    picture, text = make_submit(1, range(9), images=[(2, b"aaaa")]), make_submit(2, range(5))
    client.send(picture, b"aaaa")
    setting.engine.step(wait_s=1)
    client.send(text)
    deltas = setting.answers(client, count=2)
    assert [delta.finish for delta in deltas[1]] == [FinishReason.ERROR]
    assert tokens(deltas[2]) == expected_tokens(text, [])
    client.send(picture := make_submit(3, range(9), images=[(2, b"aaaa")]), b"aaaa")
    assert tokens(setting.answers(client)[3]) == expected_tokens(picture, [b"aaaa"])


def test_an_engine_of_several_ranks_ends_when_a_step_has_no_memory(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting.runner, "recover", lambda: False)
    setting.runner.fails_at[0] = False
    setting.connect("api-0").send(make_submit(1, range(9)))
    with pytest.raises(OutOfMemoryError):
        for _ in range(3):
            setting.engine.step(wait_s=1)


def test_inputs_are_noted_while_launched_steps_compute_them(setting: Setting) -> None:
    client = setting.connect("api-0")
    submit = make_submit(1, range(9), max_tokens=3)
    client.send(submit)
    setting.answers(client)
    setting.engine.step(wait_s=0)
    noted = [entry for entry, _ in itertools.groupby(setting.noted)]
    assert noted == [[fingerprint(submit)], []]


def test_every_step_is_reported_with_its_tokens(setting: Setting) -> None:
    client = setting.connect("api-0")
    client.send(make_submit(1, range(9), max_tokens=3))
    steps: list[StepReport] = []
    while sum(step.tokens for step in steps) < 11:
        setting.engine.step(wait_s=1)
        while client.poll():
            message = client.receive()
            assert isinstance(message, Outputs)
            steps += [message.step] if message.step else []
    assert [step.tokens for step in steps] == [9, 1, 1]
    assert all(step.seconds > 0 for step in steps)


def test_steps_keep_to_the_budget_and_teach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "nobody_decodes", False)
    budget = StepBudget(limits(step_token_budget=40), target_s=60.0)
    setting = Setting(tmp_path, budget)
    client = setting.connect("api-0")
    client.send(make_submit(1, range(50), max_tokens=1))
    setting.answers(client)
    rows = [row for plan in setting.runner.plans for row in plan.rows or []]
    assert [row.count for row in rows] == [40, 10]
    assert budget.prompt_tokens == 60, "the first step was short"
    for fails_for_pictures, left in ((True, 60), (False, 32)):
        setting.runner.fails_at[len(setting.runner.plans)] = fails_for_pictures
        client.send(make_submit(2, range(50), max_tokens=1))
        setting.answers(client)
        assert budget.prompt_tokens == left
    setting.close()


@pytest.mark.parametrize("budget", [None, StepBudget(limits(step_token_budget=40), target_s=60.0)])
def test_a_process_is_told_the_budget_when_it_connects(
    tmp_path: Path, budget: StepBudget | None
) -> None:
    setting = Setting(tmp_path, budget)
    message = setting.connect("api-0").receive()
    assert isinstance(message, Outputs)
    assert message.gauges.prompt_budget == (40 if budget else 16)
    setting.close()


def test_the_first_token_tells_how_long_the_request_waited(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engine.request.time", SimpleNamespace(monotonic=lambda: 10.0))
    monkeypatch.setattr("server.engine.residency.time", SimpleNamespace(monotonic=lambda: 4.0))
    client = setting.connect("api-0")
    client.send(make_submit(1, range(5), max_tokens=3))
    first, *others = setting.answers(client)[1]
    assert first.prefill_s == 6.0
    assert all(delta.queued_s == delta.prefill_s == 0 for delta in others)
