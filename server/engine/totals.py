"""What the engine has done since it started, and the gauges it reports after each step."""

from __future__ import annotations

from dataclasses import dataclass

from server.engine.blocks import BlockPool
from server.messages import Gauges


@dataclass(slots=True)
class Totals:
    """Counters that only grow."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    images_encoded: int = 0
    images_cached: int = 0
    preemptions: int = 0
    cancellations: int = 0
    steps: int = 0
    guessed_tokens: int = 0
    confirmed_tokens: int = 0

    def count_image(self, *, encoded: bool) -> None:
        if encoded:
            self.images_encoded += 1
        else:
            self.images_cached += 1

    def gauges(
        self,
        *,
        running: int,
        waiting: int,
        blocks: BlockPool,
        image_slots_used: int,
        prompt_budget: int,
    ) -> Gauges:
        return Gauges(
            requests_running=running,
            requests_waiting=waiting,
            kv_blocks_used=blocks.used,
            kv_blocks=blocks.num_blocks,
            image_slots_used=image_slots_used,
            prompt_budget=prompt_budget,
            prompt_tokens_total=self.prompt_tokens,
            cached_tokens_total=self.cached_tokens,
            generated_tokens_total=self.generated_tokens,
            images_encoded_total=self.images_encoded,
            images_cached_total=self.images_cached,
            preemptions_total=self.preemptions,
            cancellations_total=self.cancellations,
            steps_total=self.steps,
            guessed_tokens_total=self.guessed_tokens,
            confirmed_tokens_total=self.confirmed_tokens,
        )
