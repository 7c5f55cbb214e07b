from __future__ import annotations

import os
import queue
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server import __version__
from server.errors import StartupError
from server.hosts import FailedThere, Hosts, Joined, Lost, check_hosts, digest, shared
from server.link import End, Failed, FromHead, Join, Line, LineLostError, Start
from server.settings import Settings
from tests.proxy import free_port

FLAGS: dict[str, Any] = {"nnodes": 2, "tensor_parallel_size": 2, "master_addr": "127.0.0.1"}


class Head:
    def __init__(self, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        self.settings = Settings(**FLAGS, master_port=free_port())
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.hosts = Hosts(self.settings, folder, self.events)
        self.model = digest(self.settings, folder)

    def call(self) -> Line[FromHead]:
        address = ("127.0.0.1", self.settings.master_port)
        return Line(socket.create_connection(address), FromHead)  # type: ignore[arg-type]

    def join(self, **changes: Any) -> Line[FromHead]:
        values: dict[str, Any] = {"node": 1, "version": __version__, "model": self.model}
        values["settings"] = shared(self.settings)
        line = self.call()
        line.send(Join(**(values | changes)))
        return line


@pytest.fixture
def head(tmp_path: Path) -> Any:
    head = Head(tmp_path)
    yield head
    head.hosts.end(0, "the test is over")


def test_a_host_joins_is_told_to_start_reports_and_is_lost(head: Head) -> None:
    assert head.hosts.missing == [1]
    line = head.join()
    assert head.events.get(timeout=5) == Joined(1)
    assert head.hosts.missing == []
    head.hosts.start(7, 1234)
    assert line.receive() == Start(7, "127.0.0.1", 1234)
    line.send(Failed(7, "rank-1 (pid 5) was ended by SIGKILL", refused=False))
    failed = head.events.get(timeout=5)
    what = "rank-1 (pid 5) was ended by SIGKILL on node 1 (127.0.0.1)"
    assert failed == FailedThere(what, 7, refused=False)
    line.close()
    lost = head.events.get(timeout=5)
    assert isinstance(lost, Lost)
    assert lost.what.startswith("node 1 (127.0.0.1) is lost")
    assert head.hosts.missing == [1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "0"}, "it runs version 0"),
        ({"node": 2}, "--node-rank 2 is not between 1 and 1"),
        ({"model": "another"}, "its model is another one"),
        (
            {"settings": shared(Settings(**FLAGS, max_num_seqs=7))},
            "it has --max-num-seqs 7, the head 32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(head: Head, changes: dict[str, Any], reason: str) -> None:
    line = head.join(**changes)
    end = line.receive()
    assert isinstance(end, End)
    assert reason in end.reason
    with pytest.raises(LineLostError):
        line.receive()
    assert head.hosts.missing == [1]
    line.close()


def test_no_secret_crosses_the_network() -> None:
    told = shared(Settings(**FLAGS, api_keys=("team sk-secret",)))
    assert "sk-secret" not in str(told)


def test_a_number_is_taken_once(head: Head) -> None:
    first, second = head.join(), None
    assert head.events.get(timeout=5) == Joined(1)
    second = head.join()
    end = second.receive()
    assert isinstance(end, End)
    assert "--node-rank 1 is taken by 127.0.0.1" in end.reason
    first.close()
    second.close()


def test_a_host_that_calls_again_is_heard_before_its_old_line_ends(head: Head) -> None:
    first = head.join()
    assert head.events.get(timeout=5) == Joined(1)
    second, third = head.join(), head.join()
    time.sleep(0.2)
    first.close()
    assert isinstance(head.events.get(timeout=5), Lost)
    assert head.events.get(timeout=5) == Joined(1)
    head.hosts.start(7, 1234)
    refused, welcome = sorted((second.receive(), third.receive()), key=lambda m: type(m).__name__)
    assert isinstance(refused, End)
    assert welcome == Start(7, "127.0.0.1", 1234)
    second.close()
    third.close()


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b'{"type":"Beat"}']
)
def test_strangers_are_dropped(head: Head, noise: bytes) -> None:
    address = ("127.0.0.1", head.settings.master_port)
    # It may be dropped before it has said all.
    with socket.create_connection(address) as stranger, suppress(OSError):
        stranger.sendall(noise)
        stranger.shutdown(socket.SHUT_WR)
    line = head.join()
    assert head.events.get(timeout=5) == Joined(1)
    line.close()


def test_a_stranger_that_resets_its_connection_leaves_no_traceback(head: Head) -> None:
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", head.settings.master_port)) as stranger:
            at_once = struct.pack("ii", 1, 0)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    line = head.join()
    assert head.events.get(timeout=5) == Joined(1)
    line.close()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_other_weights_of_the_same_shape_are_another_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings, digests = Settings(**FLAGS), set()
    for content in (os.urandom(1 << 20), os.urandom(1 << 20), b"", b"short"):
        (tmp_path / name).write_bytes(content)
        digests.add(digest(settings, tmp_path))
        assert digest(settings, tmp_path) in digests
    assert len(digests) == 4
    made_up = Settings(**FLAGS, load_format="dummy")
    without = digest(made_up, tmp_path)
    (tmp_path / name).unlink()
    assert digest(made_up, tmp_path) == without, "nobody reads what is made up"


def test_settings_that_contradict_each_other_are_explained() -> None:
    check_hosts(Settings(**FLAGS))
    for changes, message in (
        ({"node_rank": 2}, "--node-rank 2 is not below --nnodes 2"),
        ({"tensor_parallel_size": 3}, "--nnodes 2 does not divide the 3 ranks"),
        ({"master_addr": None}, "--nnodes 2 needs --master-addr"),
    ):
        with pytest.raises(StartupError, match=message):
            check_hosts(Settings(**(FLAGS | changes)))


def test_a_master_address_of_another_host_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings = Settings(nnodes=2, master_addr="192.0.2.1", tensor_parallel_size=2)
    with pytest.raises(StartupError, match="--master-addr must be an address of node 0"):
        Hosts(settings, tmp_path, queue.SimpleQueue())


def test_messages_are_told_apart() -> None:
    decoder = msgspec.json.Decoder(FromHead)
    assert decoder.decode(msgspec.json.encode(Start(1, "h", 2))) == Start(1, "h", 2)
