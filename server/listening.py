"""The sockets that clients connect to, bound before anything is loaded: a taken port is known at
once, and connections wait in the backlog while processes come and go."""

from __future__ import annotations

import socket

from server.errors import StartupError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        StartupError: the address cannot be bound.
    """
    try:
        return bind(host, port)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port, or "
            "0 for a free one"
        ) from None


def bind(host: str, port: int) -> socket.socket:
    """A socket of the family that the numeric address or name is of. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def address(listener: socket.socket) -> str:
    """URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
