"""The sockets that clients connect to, bound before anything is loaded: a taken port is known at
once, and connections wait in the backlog while the process behind comes and goes.

Several API processes have a socket each on one port, and the kernel spreads connections over those
that listen. A process that is gone leaves its share to the others until it is back.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Self

from server.errors import StartupError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that has its port for itself.

    Raises:
        StartupError: the address cannot be bound.
    """
    try:
        return bind(host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def bind(host: str, port: int) -> socket.socket:
    """A socket of the family that the numeric address or name is of. Raises OSError."""
    return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)


class Listeners:
    """A bound socket for each API process, all on one address. Close them to give it up.

    Args:
        port: 0 takes a free one.
        count: of processes. One has the port for itself.

    Raises:
        StartupError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, count: int = 1) -> None:
        first = listen(host, port)
        self.address = address(first)
        self._host, self._port = host, first.getsockname()[1]
        self._sockets = [first]
        if count > 1:
            first.close()  # it has shown that nobody else has the port
            self._sockets = []
            try:
                for _ in range(count):
                    self._sockets.append(self._share())
                    self._sockets[-1].listen(BACKLOG)
            except OSError as error:
                self.close()
                raise _cannot_listen(host, self._port, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, place: int) -> socket.socket:
        return self._sockets[place]

    def replace(self, place: int) -> None:
        """Gives a process that is gone a socket for its next start. It does not listen until then,
        so that connections go to the others; where there are none they are refused."""
        if len(self._sockets) > 1:
            self._sockets[place].close()
            self._sockets[place] = self._share()

    def close(self) -> None:
        with ExitStack() as owned:
            for one in self._sockets:
                owned.callback(one.close)

    def _share(self) -> socket.socket:
        """A socket that is bound and does not listen."""
        one = socket.socket(_family(self._host), socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((self._host, self._port))
        return one


def _cannot_listen(host: str, port: int, error: OSError) -> StartupError:
    return StartupError(
        f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port, or "
        "0 for a free one"
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address(listener: socket.socket) -> str:
    """URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
