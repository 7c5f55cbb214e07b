"""How much of everything fits: KV blocks, context length, and what a runner may be asked for.

Pure arithmetic on settings, checkpoint and free memory, so that it can be read and tested without a
device. What the operator asked for and cannot have is an error that says what to change.
"""

from __future__ import annotations

from server.engine.plan import RunnerLimits
from server.errors import StartupError
from server.model.spec import ModelSpec
from server.settings import Settings

GIB = 2**30


def plan_limits(
    settings: Settings,
    spec: ModelSpec,
    *,
    block_size: int,
    token_bytes: int,
    free_bytes: int,
    on_cpu: bool,
    stages: int = 1,
) -> RunnerLimits:
    """Divides the memory of the rank that has room for the fewest tokens.

    Args:
        block_size: tokens of a block in the KV cache.
        token_bytes: what a token takes in the rank's KV cache.
        free_bytes: what is free once the weights are loaded.
        stages: of the layer pipeline.

    Raises:
        StartupError: the settings ask for more than there is.
    """
    max_positions = spec.text.max_positions
    asked = settings.max_model_len
    if asked is not None and asked > max_positions:
        raise StartupError(
            f"--max-model-len {asked} is more than the {max_positions} tokens of the checkpoint"
        )
    wanted = asked or max_positions
    context_blocks = -(-wanted // block_size)
    block_bytes = block_size * token_bytes
    if settings.kv_cache_blocks is not None:
        blocks = settings.kv_cache_blocks
    elif settings.kv_cache_gib is not None:
        blocks = int(settings.kv_cache_gib * GIB) // block_bytes
    elif on_cpu:
        blocks = min(settings.max_num_seqs * context_blocks, free_bytes // 4 // block_bytes)
    else:
        blocks = int(free_bytes * 0.9) // block_bytes
    if blocks * block_bytes > free_bytes:
        raise StartupError(
            f"a KV cache of {blocks} blocks takes {blocks * block_bytes / GIB:.1f} GiB, "
            f"{free_bytes / GIB:.1f} GiB are free: lower --kv-cache-blocks or --kv-cache-gib"
        )
    fits = blocks * block_size
    if fits < min(asked or 1, wanted) or blocks < 1:
        raise StartupError(
            f"a KV cache of {blocks} blocks holds {fits} tokens, --max-model-len asks for "
            f"{asked}: raise --kv-cache-blocks or --kv-cache-gib, or lower --max-model-len"
        )
    return RunnerLimits(
        slots=settings.max_num_seqs,
        kv_blocks=blocks,
        kv_block_size=block_size,
        image_slots=settings.image_cache_slots,
        image_cost_tokens=spec.image_cost_tokens,
        step_token_budget=settings.step_token_budget or min(wanted, fits),
        max_model_len=min(wanted, fits),
        vocab_size=spec.text.vocab_size,
        tokens_per_image=spec.tokens_per_image,
        image_bytes=3 * spec.vision.image_size**2,
        stages=stages,
    )
