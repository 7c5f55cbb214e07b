"""A runner that computes with tuples instead of tensors, and what it should have computed.

It keeps the state that `engine/plan.py` describes and checks every plan against it. The "model" is
a hash of everything a position can see, read back through the block table: a wrong block, a stale
picture or a lost token changes every token that follows.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from server.engine.plan import (
    Confirm,
    Install,
    OutOfMemoryError,
    Row,
    RunnerLimits,
    StepPlan,
    StepResult,
)
from server.messages import ImageRef, SamplingParams, Submit

TOKENS_PER_IMAGE = 6
IMAGE_BYTES = 4
VOCAB_SIZE = 50

Content = tuple[str, bytes, int]

PARROT = 2
"""With this seed the fake model repeats, seven times out of eight, what followed its newest token
before."""


def limits(**changes: int) -> RunnerLimits:
    values = {
        "slots": 4,
        "kv_blocks": 16,
        "kv_block_size": 4,
        "image_slots": 3,
        "image_cost_tokens": 5,
        "step_token_budget": 16,
        "max_model_len": 64,
        "vocab_size": VOCAB_SIZE,
        "tokens_per_image": TOKENS_PER_IMAGE,
        "image_bytes": IMAGE_BYTES,
    }
    return RunnerLimits(**(values | changes))


def next_token(contents: Sequence[Content], seed: int, mask: bytes | None = None) -> int:
    digest = hashlib.blake2b(repr((list(contents), seed)).encode(), digest_size=4).digest()
    allowed = [t for t in range(VOCAB_SIZE) if mask is None or mask[t // 8] >> t % 8 & 1]
    if seed == PARROT and digest[0] % 8:
        before = [i for i, content in enumerate(contents[:-1]) if content == contents[-1]]
        if before and (token := contents[before[-1] + 1][2]) in allowed:
            return token
    return allowed[int.from_bytes(digest, "little") % len(allowed)]


class CountingMatcher:
    """A grammar: token i of the answer leaves the remainder i when divided by 3; `size` in all."""

    failed = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.accepted = 0

    def mask(self) -> bytes:
        bits = sum(1 << token for token in range(self.accepted % 3, VOCAB_SIZE, 3))
        return bits.to_bytes(VOCAB_SIZE // 8 + 1, "little")

    def accept(self, token_id: int) -> None:
        assert token_id % 3 == self.accepted % 3, "a token outside the mask"
        self.accepted += 1

    @property
    def complete(self) -> bool:
        return self.accepted == self.size


def expected_tokens(
    submit: Submit, pixels: Sequence[bytes], grammar_size: int | None = None
) -> list[int]:
    """The answer by the definition: one request, one token at a time, no cache of any kind."""
    matcher = None if grammar_size is None else CountingMatcher(grammar_size)
    prompt = array("i")
    prompt.frombytes(submit.prompt)
    contents: list[Content] = [("token", b"", token) for token in prompt]
    for image, data in zip(submit.images, pixels, strict=True):
        for index in range(image.length):
            contents[image.offset + index] = ("image", bytes(data), index)
    answer: list[int] = []
    while len(answer) < submit.max_tokens:
        mask = None if matcher is None else matcher.mask()
        answer.append(next_token(contents, submit.sampling.seed, mask))
        contents.append(("token", b"", answer[-1]))
        if answer[-1] in submit.stop_ids:
            break
        if matcher is not None:
            matcher.accept(answer[-1])
            if matcher.complete:
                break
    return answer


@dataclass
class Slot:
    """What a runner remembers of the request in a slot."""

    tokens: list[int]
    computed: int
    blocks: list[int]
    seed: int
    guesses: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    """After the first and after each guess of the last row."""


@dataclass
class Launched:
    """A step that is computed when its masks and the steps before it are there."""

    runner: FakeRunner
    plan: StepPlan
    masks: Sequence[bytes | None] | None = None
    value: StepResult | None = None

    def provide(self, masks: Sequence[bytes | None]) -> None:
        assert self.masks is None
        self.masks = masks
        self.runner.go_on()

    def result(self) -> StepResult:
        if self.value is None and self.runner.failure is not None:
            raise OutOfMemoryError(encoding=self.runner.failure)
        assert self.value is not None, "the masks never came"
        self.runner.read_back = self.plan.step
        return self.value


@dataclass
class FakeRunner:
    limits: RunnerLimits
    slots: dict[int, Slot] = field(default_factory=dict)
    kv: dict[tuple[int, int], Content] = field(default_factory=dict)
    pictures: dict[int, bytes] = field(default_factory=dict)
    plans: list[StepPlan] = field(default_factory=list)
    drawn_in: dict[int, int] = field(default_factory=dict)
    """Slot to the step that drew its newest token."""
    read_back: int = -1
    """The newest step whose tokens the engine knows."""
    fails_at: dict[int, bool] = field(default_factory=dict)
    """Steps that do not fit into the memory, and whether it is for their pictures."""
    failure: bool | None = None
    _last_slots: deque[list[int]] = field(default_factory=deque)
    _waiting: deque[Launched] = field(default_factory=deque)

    def launch(self, plan: StepPlan) -> Launched:
        assert plan.step == len(self.plans), "plans must be consecutive"
        assert len(self._waiting) < self.limits.stages, "masks must come in time"
        assert plan.step - self.read_back <= self.limits.stages + 1, "too many steps in flight"
        self.plans.append(plan)
        launched = Launched(self, plan)
        self._waiting.append(launched)
        if not plan.masked:
            launched.provide([])
        return launched

    def go_on(self) -> None:
        """Executes what can be, in the order of the plans."""
        while self._waiting and (masks := self._waiting[0].masks) is not None:
            launched = self._waiting.popleft()
            if self.failure is None:
                self.failure = self.fails_at.get(launched.plan.step)
            if self.failure is None:
                launched.value = self.execute(launched.plan, masks)

    def recover(self) -> bool:
        """Nothing that was launched or is cached may be needed again."""
        self.failure = None
        self._waiting.clear()
        self.read_back = len(self.plans) - 1
        for state in (self.slots, self.kv, self.pictures, self.drawn_in):
            state.clear()
        return True

    def execute(self, plan: StepPlan, masks: Sequence[bytes | None]) -> StepResult:
        for confirm in plan.confirms:
            self._confirm(confirm)
        for install in plan.installs:
            self._install(install)
        for grow in plan.grows:
            self.slots[grow.slot].blocks += grow.blocks
        encoded = [encode.image_slot for encode in plan.encodes]
        assert len(set(encoded)) == len(encoded), "two pictures in one slot"
        for encode in plan.encodes:
            self.pictures[encode.image_slot] = bytes(encode.pixels)
        return StepResult(
            plan.step, self._forward(plan, dict(zip(plan.masked, masks, strict=True)))
        )

    def close(self) -> None:
        self.slots.clear()

    def _install(self, install: Install) -> None:
        tokens = array("i")
        tokens.frombytes(install.tokens)
        self.drawn_in.pop(install.slot, None)
        self.slots[install.slot] = Slot(
            list(tokens), install.computed, list(install.blocks), install.sampling.seed
        )

    def _confirm(self, confirm: Confirm) -> None:
        slot, count = self.slots[confirm.slot], confirm.count
        assert 0 < count <= len(slot.guesses), "guesses of another row"
        assert slot.guesses[:count] == slot.drawn[:count], "a wrong guess"
        slot.tokens += slot.drawn[1 : count + 1]
        slot.computed += count

    def _forward(self, plan: StepPlan, masks: dict[int, bytes | None]) -> list[int]:
        rows = plan.rows
        if rows is None:
            rows = [Row(slot, 1) for slot in self._last_slots[-self.limits.stages]]
        named = [row.slot for row in rows]
        self._last_slots.append(named)
        assert rows
        assert len(set(named)) == len(rows), "a slot has two rows"
        cost = sum(row.count for row in rows)
        if len(plan.encodes) > 1:  # a single picture may be dearer than a budget
            cost += len(plan.encodes) * self.limits.image_cost_tokens
        # A token for everybody who decodes and one of a prompt are always computed.
        assert cost <= max(self.limits.step_token_budget, self.limits.slots + 1)
        embeddings = {
            (s.slot, s.position + i): ("image", self.pictures[s.image_slot], s.first + i)
            for s in plan.scatters
            for i in range(s.count)
        }
        for row in rows:  # all keys and values are written before anything is read
            self._check_turn(row, plan.step)
            self._write(row, embeddings)
        assert not embeddings, "an embedding outside its chunk"
        sampling = [slot for slot in named if self._samples(slot)]
        self.drawn_in.update((slot, plan.step) for slot in sampling)
        assert masks.keys() <= set(sampling), "a mask for a row that does not sample"
        drawn = (self._sample(self.slots[slot], masks.get(slot)) for slot in sampling)
        return list(chain.from_iterable(drawn))

    def _check_turn(self, row: Row, step: int) -> None:
        """A row that reads the newest token of its slot finds it at the first stage; one with
        guesses comes when that token, which they follow, is known."""
        state, drawn_in = self.slots[row.slot], self.drawn_in.get(row.slot, -1)
        known = drawn_in <= self.read_back
        assert known or not state.guesses, "a row before its guesses were read"
        assert known or not row.guesses, "guesses after a token that nobody knows"
        if state.computed + row.count == len(state.tokens):
            assert known or drawn_in <= step - self.limits.stages, "a row before its token"

    def _write(self, row: Row, embeddings: dict[tuple[int, int], tuple[str, bytes, int]]) -> None:
        state = self.slots[row.slot]
        state.guesses = row.guesses
        tokens = state.tokens + row.guesses
        assert len(row.guesses) < row.count <= len(tokens) - state.computed
        assert not row.guesses or row.count == len(tokens) - state.computed
        for position in range(state.computed, state.computed + row.count):
            token: Content = ("token", b"", tokens[position])
            block = state.blocks[position // self.limits.kv_block_size]
            place = (block, position % self.limits.kv_block_size)
            self.kv[place] = embeddings.pop((row.slot, position), token)
        state.computed += row.count - len(row.guesses)

    def _samples(self, slot: int) -> bool:
        return self.slots[slot].computed == len(self.slots[slot].tokens)

    def _sample(self, state: Slot, mask: bytes | None) -> list[int]:
        size, end = self.limits.kv_block_size, state.computed + len(state.guesses)
        contents = [self.kv[state.blocks[p // size], p % size] for p in range(end)]
        state.drawn = [
            next_token(contents[:known], state.seed, mask)
            for known in range(state.computed, end + 1)
        ]
        state.tokens.append(state.drawn[0])
        return state.drawn


def make_submit(
    request_id: int,
    prompt: Sequence[int],
    *,
    images: Sequence[tuple[int, bytes]] = (),
    max_tokens: int = 4,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
    cache_salt: bytes = b"",
    priority: int = 0,
    tenant: bytes = b"",
) -> Submit:
    """A request; `images` are (offset, pixels)."""
    refs = [
        ImageRef(hashlib.blake2b(pixels, digest_size=16).digest(), offset, TOKENS_PER_IMAGE)
        for offset, pixels in images
    ]
    return Submit(
        id=request_id,
        prompt=array("i", prompt).tobytes(),
        images=refs,
        sampling=SamplingParams(temperature=0.0, seed=seed),
        max_tokens=max_tokens,
        stop_ids=list(stop_ids),
        cache_salt=cache_salt,
        priority=priority,
        tenant=tenant,
    )
