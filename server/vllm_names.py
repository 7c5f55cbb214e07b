"""The names that vLLM gave to the same quantities, for routers and dashboards written for it.

Aliases carry `model_name`, by which those dashboards select; there is still one series per family,
which is all that routers read.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, tuple[str, ...]] = {
    "internvl_requests_running": ("vllm:num_requests_running",),
    "internvl_requests_waiting": ("vllm:num_requests_waiting",),
    "internvl_kv_cache_usage_ratio": ("vllm:kv_cache_usage_perc",),
    "internvl_cache_config_info": ("vllm:cache_config_info",),
    "internvl_prompt_tokens_total": (
        "vllm:prompt_tokens_total",
        "vllm:prefix_cache_queries_total",
    ),
    "internvl_cached_tokens_total": ("vllm:prefix_cache_hits_total",),
    "internvl_generated_tokens_total": ("vllm:generation_tokens_total",),
    "internvl_requests_finished_total": ("vllm:request_success_total",),
    "internvl_preemptions_total": ("vllm:num_preemptions_total",),
    "internvl_guessed_tokens_total": ("vllm:spec_decode_num_draft_tokens_total",),
    "internvl_confirmed_tokens_total": ("vllm:spec_decode_num_accepted_tokens_total",),
    "internvl_time_to_first_token_seconds": ("vllm:time_to_first_token_seconds",),
    "internvl_inter_token_latency_seconds": ("vllm:inter_token_latency_seconds",),
    "internvl_time_per_output_token_seconds": ("vllm:request_time_per_output_token_seconds",),
    "internvl_request_seconds": ("vllm:e2e_request_latency_seconds",),
    "internvl_queue_seconds": ("vllm:request_queue_time_seconds",),
    "internvl_prefill_seconds": ("vllm:request_prefill_time_seconds",),
    "internvl_decode_seconds": ("vllm:request_decode_time_seconds",),
    "internvl_step_tokens": ("vllm:iteration_tokens_total",),
    "internvl_request_prompt_tokens": ("vllm:request_prompt_tokens",),
    "internvl_request_output_tokens": ("vllm:request_generation_tokens",),
}
"""Our name to theirs. What a percentage is called there is a share from 0 to 1, as with us."""
