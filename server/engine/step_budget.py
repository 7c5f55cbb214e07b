"""How many prompt tokens a step may hold, learned from the times of the steps before it.

Whoever decodes gets one token from each step, so a step lasts as long as the pause in every stream.
Steps without prompts tell what decoding takes by itself; what others take beyond that is for their
prompts, and the line through both meets the target somewhere. It does so again and again, because
prompts get dearer with the context behind them, streams come and go, and machines slow down.

Where nobody decodes nobody waits, and steps are longer: weights that are read once serve more
tokens.
"""

from __future__ import annotations

from server.engine.plan import RunnerLimits
from server.messages import StepReport

SMALLEST, LARGEST = 32, 8192
"""Prompts must get on however slow the machine is; and a step that is still short with so many
tokens gains nothing from more. `model/footprint.py` counts activations of a quarter of the largest,
and the KV cache leaves a tenth of a GPU's free memory, whatever they take: a step that finds too
little there makes the budget `shrink`, or several ranks start again."""

ALONE, ALONE_LARGEST = 4, 2048
"""How many times the budget a step holds where nobody decodes, and how many tokens at most: as many
as activations are counted for."""

AIM = 0.9
"""Share of the target to aim at: times vary."""

SLOWED = 2
"""How many times as long as decoding alone a step may take where that misses the target already:
prompts get as much of the machine as streams do."""

FULL = 0.75
"""Share of the budget that a step must have used before it tells that more would fit."""

SHRINK, GROW = 0.25, 1.5
"""Furthest that one step may move the budget: it may have been slow or fast for another reason."""

RECENT = 0.3
"""Weight of the newest step without prompts among those."""


class StepBudget:
    """Told of every step in order.

    Args:
        limits: their step budget is where to begin.
        target_s: longest pause that a stream should notice.
    """

    def __init__(self, limits: RunnerLimits, target_s: float) -> None:
        self.prompt_tokens = limits.step_token_budget
        """That the next step may hold beside one token for everybody who decodes."""
        self._largest = LARGEST
        # In a pipeline a stream gets a token from every P-th step.
        self._aim_s = AIM * target_s / limits.stages
        self._image_cost_tokens = limits.image_cost_tokens
        self._decode_s = 0.0

    def tokens(self, *, alone: bool) -> int:
        """For the prompts of the next step; `alone` where nobody decodes."""
        if not alone:
            return self.prompt_tokens
        return max(self.prompt_tokens, min(ALONE * self.prompt_tokens, ALONE_LARGEST))

    def note(self, step: StepReport) -> None:
        """A step beside streams is over."""
        prompt_tokens = step.tokens - step.rows - step.guesses
        prompt_tokens += step.pictures * self._image_cost_tokens
        if not prompt_tokens:
            self._decode_s += RECENT * (step.seconds - self._decode_s)
            return
        self._decode_s = min(self._decode_s, step.seconds)
        fitting = self._fitting(prompt_tokens, step.seconds)
        if step.seconds > self._aimed_s:
            self._move_to(min(self.prompt_tokens, max(fitting, SHRINK * self.prompt_tokens)))
        elif prompt_tokens >= FULL * self.prompt_tokens and fitting > self.prompt_tokens:
            # Half of the way, lest the next step be too long.
            middle = (self.prompt_tokens + fitting) / 2
            self._move_to(min(middle, GROW * self.prompt_tokens))

    def shrink(self) -> None:
        """A step did not fit into the memory: none will be as large again."""
        self._largest = max(SMALLEST, self.prompt_tokens // 2)
        self._move_to(self._largest)

    @property
    def _aimed_s(self) -> float:
        """How long a step may take."""
        return self._aim_s if self._decode_s < self._aim_s else SLOWED * self._decode_s

    def _fitting(self, prompt_tokens: int, seconds: float) -> float:
        """Where the line through a step without prompts and this one meets the aim."""
        prompt_s = seconds - self._decode_s
        if prompt_s <= 0:
            return float(self._largest)
        return prompt_tokens * (self._aimed_s - self._decode_s) / prompt_s

    def _move_to(self, prompt_tokens: float) -> None:
        self.prompt_tokens = max(SMALLEST, min(self._largest, int(prompt_tokens)))
