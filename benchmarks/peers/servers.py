"""The servers that are measured: where they are installed and how each is started.

Each takes the same checkpoint and all cores; what a server is told beyond its defaults is what its
users would tell it on this machine. `benchmarks/peers/install NAME` installs one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

INSTALLED = Path(".cache/peers")
SLOTS, SLOT_TOKENS = 32, 4096
CACHE_GIB = 2
"""What ours takes by default, for all."""
CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    needs: Path
    """A file that is there when it is installed."""
    arguments: str
    """What follows that file; `{model}`, `{files}` and `{port}` are filled in."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, checkpoint: Path, port: int) -> list[str]:
        values = {"model": checkpoint, "files": INSTALLED / self.name / "model", "port": port}
        words = self.arguments.split()
        return [str(self.needs), *(word.format_map(values) for word in words)]


_OURS = "-P -m server serve --model {model} --served-model-name mid --host 127.0.0.1 --port {port} "

PEERS = (
    Peer("ours", Path(sys.executable), _OURS),
    Peer("ours-int8", Path(sys.executable), _OURS + "--quantization int8"),
    Peer(
        "vllm",
        INSTALLED / "vllm/bin/python",
        # Its own command looks for a package of another name.
        "-m vllm.entrypoints.openai.api_server --model {files} --served-model-name mid "
        "--host 127.0.0.1 --port {port} "
        "--dtype bfloat16 --max-model-len 4096 --trust-remote-code",
        # By default it leaves a core free.
        {
            "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{CORES - 1}",
            "LD_PRELOAD": str((INSTALLED / "vllm/libtcmalloc_minimal.so.4").absolute()),
        },
    ),
    Peer(
        "llama.cpp",
        INSTALLED / "llama.cpp/bin/llama-server",
        "--model {files}/language.gguf --mmproj {files}/vision.gguf --alias mid --jinja "
        f"--threads {CORES} --parallel {SLOTS} --ctx-size {SLOTS * SLOT_TOKENS} "
        "--host 127.0.0.1 --port {port}",
    ),
    Peer(
        "openvino",
        INSTALLED / "openvino/bin/python",
        f"-m benchmarks.peers.openvino_server {{files}} --kv-gib {CACHE_GIB} --port {{port}}",
    ),
)


def installed() -> dict[str, Peer]:
    return {peer.name: peer for peer in PEERS if peer.needs.exists()}
