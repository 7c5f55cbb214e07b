"""The other hosts of a daemon, as the head sees them: who is there, who is lost, what they report.

Every host must have been started with the same settings and the same model, or it is refused with
what differs. Strangers that connect and say nothing sensible are dropped.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import __version__
from server.errors import StartupError
from server.link import (
    BEAT_S,
    End,
    Failed,
    FromHead,
    FromWorker,
    Join,
    Line,
    LineLostError,
    Start,
    Stop,
)
from server.listening import bind
from server.settings import Settings

SHARED = {"nnodes", "tensor_parallel_size", "pipeline_parallel_size", "collective_timeout_s"}
SHARED |= {"vision_tensor_parallel_size", "device", "dtype", "attention_backend", "quantization"}
SHARED |= {"load_format", "max_model_len", "max_num_seqs", "kv_cache_blocks", "kv_cache_gib"}
SHARED |= {"step_token_budget", "target_step_ms", "image_cache_slots"}
"""Settings that ranks on all hosts must have in common."""

RETRY_S = 0.5

TAKEN_S = 2 * BEAT_S
"""How long a number stays taken by a line that is lost: a host that calls again may have noticed
a beat before the head, and may be heard before the end of its old line is."""

TAKEN_POLL_S = 0.02

BLOCK_BYTES = 16 * 1024
BLOCKS_MIN = 16
STRIDE_BYTES_MAX = 256 * 2**20
"""What a digest reads of a weight file: so many blocks or more, no farther apart than this. Of the
40B that is 5 MB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Joined:
    node: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A host that had joined is gone; `what` names it."""

    what: str


@dataclass(frozen=True, slots=True)
class FailedThere:
    """A rank of another host has ended."""

    what: str
    epoch: int
    refused: bool


class Hosts:
    """Listens for the other hosts at the master address.

    Args:
        events: gets `Joined`, `Lost` and `FailedThere`.
    """

    def __init__(
        self, settings: Settings, checkpoint: Path, events: queue.SimpleQueue[Any]
    ) -> None:
        self._settings = settings
        self._model = digest(settings, checkpoint)
        self._events = events
        self._lines: dict[int, Line[FromWorker]] = {}
        self._joining = threading.Lock()
        self._listener = listen_as_head(settings)
        self.address: str = self._listener.getsockname()[0]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def missing(self) -> list[int]:
        """Hosts that are not there."""
        return [n for n in range(1, self._settings.nnodes) if n not in self._lines]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._follow, args=(connection,), daemon=True).start()

    def _follow(self, connection: socket.socket) -> None:
        """Reads one line to its end."""
        try:
            line: Line[FromWorker] = Line(connection, FromWorker)  # type: ignore[arg-type]
        except OSError:  # a stranger that is gone already
            connection.close()
            return
        node = None
        try:
            node = self._welcome(line)
            while node is not None:
                message = line.receive()
                if isinstance(message, Failed):
                    what = f"{message.what} on {self._name(node, line)}"
                    self._events.put(FailedThere(what, message.epoch, message.refused))
        except LineLostError as lost:
            if node is not None and self._lines.get(node) is line:
                del self._lines[node]
                self._events.put(Lost(f"{self._name(node, line)} is lost: {lost}"))
        finally:
            line.close()

    def _welcome(self, line: Line[FromWorker]) -> int | None:
        """The number of a host that may take part."""
        message = line.receive()
        if not isinstance(message, Join):
            return None
        with self._joining:
            fault = self._fault(message)
            if fault is None:
                self._lines[message.node] = line
        if fault is not None:
            log.error("refused a host at %s: %s", line.address, fault)
            line.send(End(1, f"the head refuses this host: {fault}"))
            return None
        log.info("%s joined", self._name(message.node, line))
        self._events.put(Joined(message.node))
        return message.node

    def _fault(self, join: Join) -> str | None:
        if join.version != __version__:
            return f"it runs version {join.version}, the head {__version__}"
        own = shared(self._settings)
        for name in sorted(own):
            if join.settings.get(name) != own[name]:
                flag = f"--{name.replace('_', '-')}"
                return f"it has {flag} {join.settings.get(name)}, the head {own[name]}"
        if not 0 < join.node < self._settings.nnodes:
            return f"--node-rank {join.node} is not between 1 and {self._settings.nnodes - 1}"
        holder = self._holder(join.node)
        if holder is not None:
            return f"--node-rank {join.node} is taken by {holder.address}"
        return None if join.model == self._model else "its model is another one"

    def _holder(self, node: int) -> Line[FromWorker] | None:
        """The line of a host that has this number and keeps it."""
        deadline_s = time.monotonic() + TAKEN_S
        while (line := self._lines.get(node)) is not None and time.monotonic() < deadline_s:
            time.sleep(TAKEN_POLL_S)
        return line

    def _name(self, node: int, line: Line[FromWorker]) -> str:
        return f"node {node} ({line.address})"

    def start(self, epoch: int, port: int) -> None:
        self._send(Start(epoch, self.address, port))

    def stop(self) -> None:
        self._send(Stop())

    def end(self, status: int, reason: str) -> None:
        """Tells everybody that the daemon ends."""
        self._send(End(status, reason))
        for line in list(self._lines.values()):
            line.close()
        self._listener.close()

    def _send(self, message: FromHead) -> None:
        for line in list(self._lines.values()):
            line.send(message)


def shared(settings: Settings) -> dict[str, Any]:
    """What a host tells of its settings: nothing secret is among it."""
    return settings.model_dump(mode="json", include=SHARED)


def digest(settings: Settings, checkpoint: Path) -> str:
    """Tells one model from another: of its config and, where they are read, of its weights."""
    found = hashlib.sha256((checkpoint / "config.json").read_bytes())
    if settings.load_format == "safetensors":
        files = list(checkpoint.glob("*.safetensors")) or checkpoint.glob("pytorch_model*.bin")
        for path in sorted(filter(Path.is_file, files)):
            found.update(f"{path.name} {path.stat().st_size}\n".encode())
            for block in _blocks(path):
                found.update(block)
    return found.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    """The beginning of a file, where its header is, and parts of the rest."""
    size_bytes = path.stat().st_size
    stride_bytes = max(BLOCK_BYTES, min(size_bytes // BLOCKS_MIN, STRIDE_BYTES_MAX))
    with path.open("rb") as file:
        for offset in range(0, size_bytes, stride_bytes):
            file.seek(offset)
            yield file.read(BLOCK_BYTES)


def listen_as_head(settings: Settings) -> socket.socket:
    """Binds the master address, whose name may take a while to be known.

    Raises:
        StartupError: it is no address of this host, or its port is taken.
    """
    assert settings.master_addr is not None
    deadline_s = time.monotonic() + settings.join_timeout_s
    while True:
        try:
            return bind(resolve(settings.master_addr), settings.master_port)
        except socket.gaierror as error:
            if time.monotonic() > deadline_s:
                raise StartupError(
                    f"--master-addr {settings.master_addr} is not known: {error.strerror}"
                ) from None
            time.sleep(RETRY_S)
        except OSError as error:
            raise StartupError(
                f"cannot listen on {settings.master_addr}, port {settings.master_port} "
                f"({error.strerror}): --master-addr must be an address of node 0, --master-port "
                "a free port there"
            ) from None


def resolve(name: str) -> str:
    address: str = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]  # type: ignore[assignment]
    return address


def meeting_socket(address: str) -> socket.socket:
    """Where the ranks of one start meet: a free port of the head."""
    return bind(address, 0)


def check_hosts(settings: Settings) -> None:
    """
    Raises:
        StartupError: the settings about several hosts contradict each other.
    """
    nodes, rank = settings.nnodes, settings.node_rank
    if rank >= nodes:
        raise StartupError(f"--node-rank {rank} is not below --nnodes {nodes}")
    if settings.ranks % nodes:
        raise StartupError(
            f"--nnodes {nodes} does not divide the {settings.ranks} ranks of "
            "--tensor-parallel-size x --pipeline-parallel-size"
        )
    if nodes > 1 and settings.master_addr is None:
        raise StartupError(f"--nnodes {nodes} needs --master-addr, an address of node 0")
