"""The place where ranks meet, as they are told of it: a value that crosses processes and hosts."""

from __future__ import annotations

import msgspec

LOOPBACK = "127.0.0.1"


class Place(msgspec.Struct, frozen=True):
    """Where a start of the ranks meets, as a rank is told."""

    file: str = ""
    """For ranks of one host."""
    host: str = ""
    port: int = 0
    """Of the leader's store, for ranks of several hosts."""
    own_address: str = LOOPBACK
    """Of this host, where its ranks listen."""
    listener_fd: int = -1
    """The leader's: a socket that already listens on `port`."""
