"""The one settings tree: each field is a flag, an environment variable and a sentence of help.

Flags win over environment variables (`INTERNVL_SERVE_` + the field's name), which win over the
defaults. The supervisor reads them once and hands the frozen value to its children as JSON; nothing
else in the package reads the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.limits import Limits

ENV_PREFIX = "INTERNVL_SERVE_"


def _read_names(value: Any) -> Any:
    """Repeated flags, or a text with commas, without blanks and what is empty. What is given and
    names nothing is refused: an empty list means that everybody, or every host, is let in."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        return names
    named = tuple(filter(None, (name.strip() if isinstance(name, str) else name for name in names)))
    if not named:
        raise ValueError("it is given, but names nothing; leave it out where it shall be empty")
    return named


Quantization = Literal["none", "int8", "fp8", "int4"]


def _refuse_vision(value: Any) -> Any:
    if isinstance(value, str) and re.search("vi(t|sion)|all", value.lower()):
        raise ValueError(
            "the vision tower and the projector keep 16 bits: the model card says that in 4 bits "
            "the tower no longer understands pictures; int8, fp8 and int4 quantise the language "
            "model alone"
        )
    return value


def _also(name: str, *variables: str) -> AliasChoices:
    """Variables of programs that start groups of hosts, behind our own."""
    return AliasChoices(ENV_PREFIX + name.upper(), *variables, name)


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_names)]


class Settings(Limits, BaseSettings):
    """Everything an operator can choose."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    model: str | None = Field(
        None,
        description="Folder of a checkpoint in the InternVL-Chat-V1-2 layout, or a Hub id. "
        "Without it the demo model is served, which knows only drawn shapes and text.",
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit when the model is a Hub id."
    )
    served_model_name: Names = Field(
        (),
        description="Name that requests use in `model`; repeat it for aliases, the first is the "
        "one that answers carry. Default: the last part of the model's path or id.",
    )
    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    load_format: Literal["safetensors", "dummy", "null"] = Field(
        "safetensors",
        description="dummy makes random weights on the device instead of reading them, to measure "
        "a machine before a checkpoint is downloaded; config and tokenizer are enough then. null "
        "has no model at all and recites a text, to measure what serving costs by itself.",
    )
    null_step_ms: float = Field(
        0.0, ge=0, description="How long a step takes with --load-format null, at least."
    )
    api_workers: PositiveInt = Field(
        1,
        le=16,
        description="API processes on the port, for engines that one core cannot keep up with.",
    )
    ops_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Second port for health, metrics and version, without keys; /metrics and "
        "/version are then not on the first.",
    )
    ops_host: str = Field("127.0.0.1", description="Address of that port.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto is cuda where there is one."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="Type of weights, products and KV cache; auto is the checkpoint's own type, "
        "and float32 on a CPU without fast bfloat16.",
    )
    quantization: Annotated[Quantization, BeforeValidator(_refuse_vision)] = Field(
        "none",
        description="8 or 4 bits for the matrices of the language model, quantised while they are "
        "loaded; fp8 needs an Ada or Hopper GPU. The vision tower keeps 16 bits.",
    )
    attention_backend: Literal["auto", "fa3", "flash_attn", "triton", "cpu", "torch"] = Field(
        "auto",
        description="Attention over the KV cache: flash-attn 3 (fa3) or flash_attn where they are "
        "installed, our own kernels for GPUs (triton) and CPUs (cpu), or plain torch; auto takes "
        "the first that works, in this order, and logs why.",
    )
    tensor_parallel_size: PositiveInt = Field(
        1, le=8, description="Ranks that share the model, one per GPU; any number from 1 to 8."
    )
    pipeline_parallel_size: PositiveInt = Field(
        1,
        le=16,
        description="Stages that share the model's layers, each of --tensor-parallel-size ranks; "
        "for slow links and many small cards.",
    )
    nnodes: PositiveInt = Field(
        1,
        le=64,
        validation_alias=_also("nnodes", "LWS_GROUP_SIZE", "GROUP_WORLD_SIZE", "NNODES"),
        description="Hosts that share the ranks, each started with the same command. Also read "
        "from LWS_GROUP_SIZE, GROUP_WORLD_SIZE, NNODES.",
    )
    node_rank: int = Field(
        0,
        ge=0,
        validation_alias=_also("node_rank", "LWS_WORKER_INDEX", "GROUP_RANK", "NODE_RANK"),
        description="Which of the hosts this is; 0 is the head, which serves HTTP. Also read from "
        "LWS_WORKER_INDEX, GROUP_RANK, NODE_RANK.",
    )
    master_addr: str | None = Field(
        None,
        validation_alias=_also("master_addr", "LWS_LEADER_ADDRESS", "MASTER_ADDR"),
        description="Address of the head, on the network that the hosts share. Also read from "
        "LWS_LEADER_ADDRESS, MASTER_ADDR.",
    )
    master_port: int = Field(
        29500,
        ge=1,
        le=65535,
        validation_alias=_also("master_port", "MASTER_PORT"),
        description="Port where the head waits for the other hosts. Also read from MASTER_PORT.",
    )
    join_timeout_s: PositiveFloat = Field(
        600.0, description="Longest wait of hosts for each other."
    )
    vision_tensor_parallel_size: PositiveInt | None = Field(
        None,
        description="Ranks that share one vision tower; must divide --tensor-parallel-size. "
        "Smaller groups encode several pictures at a time and take more memory. Default: all, or "
        "on GPUs with a slow link the smallest that leaves three quarters of the KV cache.",
    )
    collective_timeout_s: PositiveFloat = Field(
        60.0, description="Longest wait of ranks for each other before the group is restarted."
    )
    max_model_len: PositiveInt | None = Field(
        None,
        description="Longest prompt and answer together, in tokens. Default: the checkpoint's "
        "limit, or less where the KV cache holds less.",
    )
    max_num_seqs: PositiveInt = Field(
        32, le=1024, description="Requests that run in one step at most; more wait."
    )
    kv_cache_blocks: PositiveInt | None = Field(
        None, description="Blocks in the KV cache. Default: what --kv-cache-gib holds."
    )
    kv_cache_gib: PositiveFloat | None = Field(
        None,
        description="Memory for the KV cache. Default: on a GPU what weights and activations "
        "leave, on a CPU enough for max-num-seqs contexts, at most a quarter of the free memory.",
    )
    step_token_budget: PositiveInt | None = Field(
        None,
        description="Tokens computed in one step at most, but at least one more than decode; "
        "bounds how long running streams wait for somebody's prompt. Default: what "
        "--target-step-ms holds, by the times of steps.",
    )
    target_step_ms: PositiveFloat | None = Field(
        None,
        description="Longest pause of a stream while prompts are computed, in milliseconds. "
        "Default: 50, on a CPU 500.",
    )
    speculate: Literal["off", "ngram"] = Field(
        "off",
        description="ngram guesses from what was said before and checks several tokens in a step: "
        "the same answers sooner where text repeats, up to 8 streams; no layer pipeline.",
    )
    image_cache_slots: PositiveInt = Field(
        64, description="Picture embeddings kept on the device for repeated pictures."
    )
    prefix_cache: bool = Field(
        True, description="Reuse the KV cache of prompts that begin alike, pictures included."
    )
    image_mode: Literal["corrected", "reference"] = Field(
        "corrected",
        description="corrected applies EXIF orientation and lays transparency over white; "
        "reference does to pictures exactly what the model card's code does.",
    )
    generation_defaults: Literal["openai", "model"] = Field(
        "openai",
        description="Where sampling parameters that a request leaves out come from: OpenAI's "
        "documentation (temperature 1, top_p 1, no top_k) or the checkpoint.",
    )
    api_key_file: Path | None = Field(
        None,
        description="File of API keys, one `name key [requests_per_minute=N] [tokens_per_minute=N] "
        "[concurrent=N]` in a line; `sha256:` and a digest may stand for the key. It is read again "
        "when it changes.",
    )
    api_keys: Names = Field(
        (),
        repr=False,
        json_schema_extra={"flag": False},
        description="API keys beside those of the file, in the environment only: a flag would show "
        "them to whoever lists processes. Without any keys everybody may ask; a variable that is "
        "set and names none is refused.",
    )
    isolate_cache_by_key: bool = Field(
        False, description="Keep caches of prompts and pictures apart for each API key."
    )
    allow_remote_media: bool = Field(
        False, description="Fetch pictures and videos by https URLs, from public addresses."
    )
    allowed_media_domains: Names = Field(
        (), description="Host from which they may be fetched; repeat it. Default: any."
    )
    media_path: Path | None = Field(
        None, description="Folder whose files requests may name by file: URLs. Default: none."
    )
    strict_params: bool = Field(
        False, description="Answer 400 to unknown fields; else `x-ignored-params` names them."
    )
    playground: bool = Field(
        True, description="Serve the playground, a page to try the model on, at `/`."
    )
    keep_alive_comment_s: PositiveFloat = Field(
        15.0, description="A comment is sent on a silent stream this often, against idle time-outs."
    )
    max_restarts: int = Field(
        5,
        ge=0,
        description="Restarts of the engine or of an API process, counted together, within "
        "--restart-window-s before giving up.",
    )
    restart_window_s: PositiveFloat = Field(
        600.0, description="Window in which restarts are counted, in seconds."
    )
    step_timeout_s: PositiveFloat = Field(
        60.0,
        description="Longest standstill of the engine, in seconds; then it is killed and started "
        "again. /livez fails at half of it.",
    )
    drain_grace_s: float = Field(
        0.0,
        ge=0,
        description="How long connections are still accepted after SIGTERM, in seconds; /readyz is "
        "503 from the beginning. Balancers need some seconds to look elsewhere.",
    )
    drain_timeout_s: float = Field(
        120.0,
        ge=0,
        description="How long open requests may go on after SIGTERM and the grace, in seconds; "
        "then they end with an error event. SIGINT and a second signal do not wait.",
    )
    shutdown_timeout_s: PositiveFloat = Field(
        5.0, description="Time that processes get to end after that, in seconds, before a kill."
    )
    cpu_threads: PositiveInt | None = Field(
        None, description="Threads that compute on a CPU. Default: the cores it may use."
    )
    check_integrity: bool = Field(
        False, description="Check every invariant of the scheduler after each step; for debugging."
    )
    profile_steps: int = Field(
        0,
        ge=0,
        description="Write a torch profiler trace of the first so many steps to the folder where "
        "the daemon was started.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe messages that are logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines to be read by people, or one JSON object each."
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Collector that gets OpenTelemetry traces by OTLP over HTTP, as in "
        "http://localhost:4318; needs the extra `otel`. Default: no traces.",
    )
    vllm_metrics: bool = Field(
        True,
        description="List in /metrics, beside our names, those that vLLM gave to the same "
        "quantities; routers and dashboards know them.",
    )

    @property
    def ranks(self) -> int:
        """On all hosts."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def names(self) -> tuple[str, ...]:
        """Model names that requests may use, the answering one first."""
        if self.served_model_name:
            return self.served_model_name
        if self.model is None:
            return ("internvl-demo",)
        return (Path(self.model).name if Path(self.model).exists() else self.model,)
