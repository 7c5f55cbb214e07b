from __future__ import annotations

import errno
import socket
from contextlib import suppress

import pytest

from server.errors import StartupError
from server.listening import Listeners, address, listen


def test_a_taken_port_is_explained() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(StartupError, match=rf"port {port} \(.*\): choose another --port"):
            listen("127.0.0.1", port)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with listen("::1", 0) as listener:
        assert address(listener).startswith("http://[::1]:")


def taken(sockets: list[socket.socket], clients: int) -> list[int]:
    """How many of so many new connections come to each socket."""
    host, port = sockets[0].getsockname()
    counts = []
    opened = [socket.create_connection((host, port), timeout=5) for _ in range(clients)]
    for one in sockets:
        one.setblocking(False)
        counts.append(0)
        with suppress(BlockingIOError, OSError):
            while True:
                one.accept()[0].close()
                counts[-1] += 1
    for client in opened:
        client.close()
    return counts


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_several_share_a_free_port(host: str) -> None:
    with Listeners(host, 0, 3) as listeners:
        sockets = [listeners[place] for place in range(3)]
        assert {address(one) for one in sockets} == {listeners.address}
        assert len({one.fileno() for one in sockets}) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_nobody_else_gets_the_port(count: int) -> None:
    with Listeners("127.0.0.1", 0, count) as listeners:
        port = listeners[0].getsockname()[1]
        for others in (1, 2):
            with pytest.raises(StartupError, match=f"port {port}"):
                Listeners("127.0.0.1", port, others)


def test_one_keeps_its_socket() -> None:
    with Listeners("127.0.0.1", 0) as listeners:
        before = listeners[0]
        listeners.replace(0)
        assert listeners[0] is before
        assert taken([before], 3) == [3]


def test_connections_go_to_those_that_are_there() -> None:
    with Listeners("127.0.0.1", 0, 2) as listeners:
        both = taken([listeners[0], listeners[1]], 64)
        assert sum(both) == 64 and min(both) > 0
        listeners.replace(1)
        assert taken([listeners[0], listeners[1]], 32) == [32, 0]
        listeners[1].listen()
        again = taken([listeners[0], listeners[1]], 64)
        assert sum(again) == 64 and min(again) > 0


def test_a_port_that_is_lost_before_it_is_shared_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def taken_meanwhile(_: Listeners) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(Listeners, "_share", taken_meanwhile)
    with pytest.raises(StartupError, match="choose another --port"):
        Listeners("127.0.0.1", 0, 2)
