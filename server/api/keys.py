"""API keys: who may ask, and within which limits of their own.

A file has one key in a line, `name key [limit=number ...]`; the key may be given as `sha256:` and
its digest, and is kept as its digest only. The file is read again when it changes; one that is
broken then leaves the keys as they were. All digests are compared, so the time tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from server.errors import ApiError, StartupError

LOOK_S = 1.0
"""The file is looked at so often at most."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """None where there is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key without the key."""

    name: str
    limits: KeyLimits


ANYBODY = ""
"""The name of all clients together where no keys are configured."""
NOBODY = Key(ANYBODY, KeyLimits())


class KeyRing:
    """All keys.

    Args:
        given: keys without a name, from the environment.
        file: of further keys.
        limits: of keys that say nothing else.

    Raises:
        StartupError: the file cannot be used; the message names the line and not what is in it.
            Or a given key is empty, which a request without a key would match.
    """

    def __init__(
        self,
        given: Sequence[str],
        file: Path | None,
        limits: KeyLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not all(key.strip() for key in given):
            raise StartupError("an API key is empty: take it out of INTERNVL_SERVE_API_KEYS")
        self._limits = limits
        self._given = {
            _digest(key): Key(f"key-{number}", limits) for number, key in enumerate(given, 1)
        }
        self._file = file
        self._clock = clock
        self._look_at = clock() + LOOK_S
        self._version = _version(file)
        self._keys = self._given | (_read(file, limits) if file else {})

    def find(self, headers: Sequence[tuple[bytes, bytes]]) -> Key:
        """The key that a request carries, as a bearer token or, as Anthropic's clients send it, in
        `x-api-key`.

        Raises:
            ApiError: 401.
        """
        if not self._keys and self._file is None:
            return Key(ANYBODY, self._limits)
        self._look()
        found, presented = None, _digest(_presented(headers))
        for digest, key in self._keys.items():
            if hmac.compare_digest(digest, presented):
                found = key
        if found is None:
            raise _refusal("Incorrect API key provided.")
        return found

    def _look(self) -> None:
        """Reads the file again if it is another one."""
        if self._file is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_S
        version = _version(self._file)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._given | _read(self._file, self._limits)
            log.info("read %d API keys", len(self._keys))
        except StartupError as error:
            log.error("the API keys stay as they were: %s", error)


def _presented(headers: Sequence[tuple[bytes, bytes]]) -> str:
    tokens = [
        value.decode("latin-1")
        for name, value in headers
        if name in (b"authorization", b"x-api-key")
    ]
    bare = {token[7:].strip() if token[:7].lower() == "bearer " else token for token in tokens}
    if len(bare) > 1:
        raise _refusal("You provided several API keys.")
    if not any(bare):
        raise _refusal("You didn't provide an API key.")
    return bare.pop()


def _refusal(message: str) -> ApiError:
    return ApiError(
        401,
        "invalid_api_key",
        f"{message} Send it with the header 'authorization: Bearer KEY'.",
        headers={"www-authenticate": "Bearer"},
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _version(file: Path | None) -> tuple[int, int, int] | None:
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return status and (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(file: Path, defaults: KeyLimits) -> dict[bytes, Key]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"the file of API keys {file} cannot be read") from None
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        key = _key(fields, defaults)
        if key is None:
            raise StartupError(
                f"{file}, line {number}: expected `name key`, then any of "
                f"{', '.join(f'{name}=N' for name in KeyLimits.__slots__)}"
            )
        keys[_file_digest(fields[1])] = key
    return keys


def _key(fields: Sequence[str], defaults: KeyLimits) -> Key | None:
    if len(fields) < 2 or not NAME.fullmatch(fields[0]):
        return None
    limits: Mapping[str, str] = dict(field.partition("=")[::2] for field in fields[2:])
    if not limits.keys() <= set(KeyLimits.__slots__):
        return None
    if not all(value.isdecimal() and int(value) > 0 for value in limits.values()):
        return None
    return Key(fields[0], replace(defaults, **{name: int(n) for name, n in limits.items()}))


def _file_digest(text: str) -> bytes:
    match = DIGEST.fullmatch(text)
    return bytes.fromhex(match[1]) if match else _digest(text)
