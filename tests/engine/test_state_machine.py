"""Random arrivals, cancellations, stops and preemptions against the answers by definition."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.messages import FinishReason
from tests.engine.fake import PARROT, TOKENS_PER_IMAGE, VOCAB_SIZE, limits, make_submit
from tests.engine.test_scheduler import Checked

PICTURES = [bytes([letter]) * 4 for letter in b"abcde"]
MAX_MODEL_LEN = 48


class SchedulerMachine(RuleBasedStateMachine):
    """Steps are taken as a rule of their own, so any interleaving may come."""

    speculates = False

    @initialize(
        slots=st.integers(1, 5),
        blocks=st.integers(12, 24),
        image_slots=st.integers(1, 3),
        image_cost=st.sampled_from([1, 5, 50]),
        budget=st.integers(1, 40),
        prefix_cache=st.booleans(),
        stages=st.sampled_from([1, 1, 2, 4]),
    )
    def start(
        self,
        *,
        slots: int,
        blocks: int,
        image_slots: int,
        image_cost: int,
        budget: int,
        prefix_cache: bool,
        stages: int,
    ) -> None:
        room = limits(
            slots=slots,
            kv_blocks=blocks,
            image_slots=image_slots,
            image_cost_tokens=image_cost,
            step_token_budget=budget,
            max_model_len=MAX_MODEL_LEN,
            stages=1 if self.speculates else stages,
        )
        self.harness = Checked(room, prefix_cache=prefix_cache, speculate=self.speculates)
        self.cancelled: set[int] = set()
        self.next_id = 0

    @rule(
        head=st.integers(0, 3),
        length=st.integers(1, 12),
        pictures=st.lists(st.sampled_from(PICTURES), max_size=3),
        max_tokens=st.integers(1, 14),
        stop_ids=st.sets(st.integers(0, VOCAB_SIZE - 1), max_size=4),
        seed=st.integers(0, 2),
        grammar_size=st.none() | st.integers(1, 10),
        priority=st.integers(-1, 1),
        tenant=st.sampled_from([b"", b"a", b"b"]),
    )
    def submit(
        self,
        *,
        head: int,
        length: int,
        pictures: list[bytes],
        max_tokens: int,
        stop_ids: set[int],
        seed: int,
        grammar_size: int | None,
        priority: int,
        tenant: bytes,
    ) -> None:
        prompt = [head] * length
        images = []
        for pixels in pictures:
            images.append((len(prompt), pixels))
            prompt += [7] * TOKENS_PER_IMAGE + [head]
        if self.speculates and seed:  # a long answer that repeats itself
            seed, max_tokens = PARROT, min(4 * max_tokens, MAX_MODEL_LEN - len(prompt))
        submit = make_submit(
            self.next_id,
            prompt,
            images=images,
            max_tokens=max_tokens,
            stop_ids=sorted(stop_ids),
            seed=seed,
            priority=priority,
            tenant=tenant,
        )
        self.next_id += 1
        self.harness.submit(submit, pictures, grammar_size=grammar_size)

    @rule(steps=st.integers(1, 6))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.harness.step()

    @rule(encoding=st.booleans())
    def run_out_of_memory(self, encoding: bool) -> None:
        runner = self.harness.runner
        runner.fails_at[len(runner.plans)] = encoding

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.integers(0, self.next_id))
        ended = any(delta.finish for delta in self.harness.deltas.get(request_id, []))
        self.harness.cancel(request_id)
        if not ended and request_id < self.next_id:
            self.cancelled.add(request_id)

    @invariant()
    def integrity(self) -> None:
        if hasattr(self, "harness"):
            self.harness.scheduler.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        self.harness.run()
        for request_id, expected in self.harness.expected.items():
            failed = self.harness.finish(request_id) is FinishReason.ERROR
            tokens = self.harness.tokens(request_id)
            if failed or request_id in self.cancelled:
                assert tokens == expected[: len(tokens)]
            else:
                assert tokens == expected


SchedulerMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestScheduler = SchedulerMachine.TestCase


class SpeculatingMachine(SchedulerMachine):
    """The same where requests guess what comes next."""

    speculates = True


SpeculatingMachine.TestCase.settings = settings(SchedulerMachine.TestCase.settings, max_examples=50)
TestSpeculation = SpeculatingMachine.TestCase
