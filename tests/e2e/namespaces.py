"""Two hosts on one machine: network namespaces with addresses of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TwoHosts:
    """`head` and `worker` see each other; this process sees the head at another address."""

    head: str
    worker: str
    head_address: str
    worker_address: str
    http_address: str

    def cut(self) -> None:
        """Takes the worker's network away."""
        ip("-n", self.worker, "link", "set", "group0", "down")

    def mend(self) -> None:
        """Gives it back, with the address that it had."""
        ip("-n", self.worker, "link", "set", "group0", "up")


def run_in(namespace: str) -> tuple[str, ...]:
    """What a command must begin with to run there."""
    return ("ip", "netns", "exec", namespace)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"`ip {' '.join(arguments)}` failed, which needs root and a kernel with network "
        f"namespaces: {done.stderr.strip()}"
    )


@contextmanager
def no_name_service(namespace: str) -> Iterator[None]:
    """Lets nobody there wait for a name server that cannot be reached. `ip netns exec` lays these
    files over /etc."""
    folder = Path("/etc/netns") / namespace
    folder.mkdir(parents=True)
    (folder / "nsswitch.conf").write_text("hosts: files\n")
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Names and addresses follow from the process, so that tests do not meet."""
    pid = os.getpid()
    net = f"10.{200 + pid % 50}.{pid // 50 % 250}"
    hosts = TwoHosts(f"ivl-h{pid}", f"ivl-w{pid}", f"{net}.1", f"{net}.2", f"{net}.130")
    outside = f"ivl{pid}"
    with ExitStack() as stack:
        for name in (hosts.head, hosts.worker):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
            stack.enter_context(no_name_service(name))
        # A pair of devices goes with either end, and a device with its namespace.
        ip("-n", hosts.head, "link", "add", "group0", "type", "veth", "peer", "name", "group0",
           "netns", hosts.worker)  # fmt: skip
        ip("link", "add", outside, "type", "veth", "peer", "name", "http0", "netns", hosts.head)
        for name, device, address in (
            (hosts.head, "group0", f"{hosts.head_address}/25"),
            (hosts.worker, "group0", f"{hosts.worker_address}/25"),
            (hosts.head, "http0", f"{hosts.http_address}/25"),
        ):
            ip("-n", name, "address", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("address", "add", f"{net}.129/25", "dev", outside)
        ip("link", "set", outside, "up")
        yield hosts
