"""The line between two hosts of one daemon: JSON lines over TCP, and a beat every second.

The head starts and stops the ranks of all hosts; the others do as they are told and report what
dies. A line that is closed or silent for `SILENCE_S` is lost, whichever end is at fault: a process
that was killed, a host without power and a cut cable look the same.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Generic, TypeVar

import msgspec

BEAT_S = 1.0
SILENCE_S = 10.0
MESSAGE_BYTES_MAX = 64 * 1024


class Beat(msgspec.Struct, frozen=True, tag=True):
    """Nothing new."""


class Join(msgspec.Struct, frozen=True, tag=True):
    """A host is there. All of it must fit what the head knows."""

    node: int
    version: str
    model: str
    """Digest of what describes the model."""
    settings: dict[str, Any]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A rank of this host has ended."""

    epoch: int
    what: str
    refused: bool
    """It would end in the same way again."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """The ranks start, and meet at this port of the head."""

    epoch: int
    host: str
    port: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The ranks end; another `Start` will come."""


class End(msgspec.Struct, frozen=True, tag=True):
    """The daemon ends."""

    status: int
    reason: str


FromWorker = Join | Failed | Beat
FromHead = Start | Stop | End | Beat
T = TypeVar("T")


class LineLostError(Exception):
    """The other end is gone; the message says how that was noticed."""


class Line(Generic[T]):
    """One end.

    Args:
        connection: a connected socket, which the line owns from here on.
        inbound: the messages that may come.
    """

    def __init__(self, connection: socket.socket, inbound: type[T]) -> None:
        connection.settimeout(SILENCE_S)
        self.own_address: str = connection.getsockname()[0]
        self.address: str = connection.getpeername()[0]
        self._connection = connection
        self._file = connection.makefile("rb")
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(inbound)
        self._sending = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, message: FromWorker | FromHead) -> None:
        """Sends to whoever is still there; `receive` tells when nobody is."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(msgspec.json.encode(message) + b"\n")

    def receive(self) -> T:
        """The next message that is not a beat.

        Raises:
            LineLostError: none will come any more.
        """
        while True:
            try:
                line = self._file.readline(MESSAGE_BYTES_MAX)
                message = self._decoder.decode(line) if line else None
            except TimeoutError:
                raise LineLostError(f"silent for {SILENCE_S:.0f} s") from None
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                raise LineLostError(f"{type(error).__name__}: {error}") from None
            if message is None:
                raise LineLostError("it closed the connection")
            if not isinstance(message, Beat):
                return message

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            self.send(Beat())

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
