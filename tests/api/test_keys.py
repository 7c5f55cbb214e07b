from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from server.api.keys import ANYBODY, LOOK_S, KeyLimits, KeyRing
from server.errors import ApiError, StartupError

NONE = KeyLimits()
Headers = list[tuple[bytes, bytes]]


def bearer(key: str) -> Headers:
    return [(b"authorization", f"Bearer {key}".encode())]


def refused(ring: KeyRing, headers: Headers) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ring.find(headers)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.headers["www-authenticate"] == "Bearer"
    return caught.value


def test_without_keys_everybody_is_one() -> None:
    assert KeyRing((), None, NONE).find([]).name == ANYBODY


def test_keys_of_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    digest = hashlib.sha256(b"secret-b").hexdigest()
    file.write_text(f"# ours\n\nann secret-a concurrent=3\nbob sha256:{digest}\n")
    ring = KeyRing(("secret-c",), file, KeyLimits(requests_per_minute=9))
    assert ring.find(bearer("secret-a")).limits == KeyLimits(9, None, 3)
    assert ring.find(bearer("secret-b")).name == "bob"
    assert ring.find([(b"x-api-key", b"secret-c")]).name == "key-1"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer(""),
        bearer("wrong"),
        bearer("secret "[:-2]),
        [*bearer("secret"), *bearer("other")],
        [*bearer("other"), (b"x-api-key", b"secret")],
        [(b"authorization", b"Basic secret")],
        [(b"authorization", b"\xff\xfe")],
        [(b"cookie", b"secret")],
    ],
)
def test_who_has_no_key(headers: Headers) -> None:
    error = refused(KeyRing(("secret",), None, NONE), headers)
    assert "secret" not in error.message and "wrong" not in error.message


def test_a_digest_is_no_key(tmp_path: Path) -> None:
    digest = "sha256:" + hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "keys").write_text(f"ann {digest}\n")
    refused(KeyRing((), tmp_path / "keys", NONE), bearer(digest))


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    for given in [("",), ("secret", " ")]:
        with pytest.raises(StartupError, match="an API key is empty"):
            KeyRing(given, None, NONE)
    nothing = hashlib.sha256(b"").hexdigest()
    (tmp_path / "keys").write_text(f"ann sha256:{nothing}\n")
    ring = KeyRing((), tmp_path / "keys", NONE)
    for headers in (bearer(""), [(b"authorization", b"")], [(b"x-api-key", b"")]):
        assert "didn't provide" in refused(ring, headers).message


def test_the_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now, file = 0.0, tmp_path / "keys"
    file.write_text("ann old-key\n")
    ring = KeyRing((), file, NONE, lambda: now)
    file.write_text("ann newer-key\n")
    assert ring.find(bearer("old-key")).name == "ann"
    now += LOOK_S
    refused(ring, bearer("old-key"))
    assert ring.find(bearer("newer-key")).name == "ann"
    file.write_text("ann\n")
    now += LOOK_S
    assert ring.find(bearer("newer-key")).name == "ann", "a broken file changes nothing"
    file.write_text("")
    now += LOOK_S
    refused(ring, bearer("newer-key"))
    assert "newer-key" not in caplog.text and "old-key" not in caplog.text


@pytest.mark.parametrize(
    "line", ["ann", "a/b secret-x", "ann secret-x speed=3", "ann secret-x concurrent=0"]
)
def test_a_broken_file_is_said_without_its_keys(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"\n{line}\n")
    with pytest.raises(StartupError, match="line 2: expected `name key`") as caught:
        KeyRing((), tmp_path / "keys", NONE)
    assert "secret-x" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        KeyRing((), tmp_path / "keys", NONE)
