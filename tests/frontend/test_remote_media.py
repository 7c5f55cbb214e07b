"""Addresses of strangers: a canary on loopback that nobody may ask, and a server that is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from server.errors import ApiError
from server.frontend.remote_media import MediaFetcher, MediaPolicy, is_public

PARAM = "messages[0].content[0].image_url.url"


class Server:
    """Answers by path and remembers who asked."""

    def __init__(self) -> None:
        hits: list[tuple[str, str]] = []
        self.hits = hits

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append((self.headers["host"], self.path))
                if self.path.startswith("/to?"):
                    self.send_response(302)
                    self.send_header("location", self.path.removeprefix("/to?"))
                    self.end_headers()
                    return
                self.send_response(404 if self.path == "/missing" else 200)
                self.end_headers()
                if self.path == "/endless":
                    while True:
                        try:
                            self.wfile.write(b"x" * 65536)
                        except OSError:
                            return
                self.wfile.write(b"picture")

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def fetch(
    url: str, policy: MediaPolicy, addresses: Sequence[Sequence[str]] = (("127.0.0.1",),)
) -> bytes:
    """Fetches with a name server that answers with `addresses`, one after another."""
    answers = iter(addresses)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(answers)

    async def run() -> bytes:
        return await MediaFetcher(policy, resolve).fetch(url, 1000, PARAM)

    return asyncio.run(run())


def refusal(
    url: str, policy: MediaPolicy, addresses: Sequence[Sequence[str]] = (("127.0.0.1",),)
) -> ApiError:
    with pytest.raises(ApiError) as caught:
        fetch(url, policy, addresses)
    assert (caught.value.status, caught.value.param) == (400, PARAM)
    return caught.value


def near(server: Server, public: bool = True) -> MediaPolicy:
    """Takes loopback for public, where `public` says so."""
    return MediaPolicy(
        remote=True,
        schemes=("http",),
        ports=(server.port,),
        public=(lambda address: address == "127.0.0.1") if public else is_public,
    )


def test_a_file_is_fetched_from_the_address_that_was_checked(server: Server) -> None:
    assert fetch(f"http://pictures.test:{server.port}/a", near(server)) == b"picture"
    assert server.hits == [(f"pictures.test:{server.port}", "/a")]


def test_nothing_is_fetched_unless_it_is_allowed(server: Server) -> None:
    error = refusal(f"http://pictures.test:{server.port}/a", MediaPolicy())
    assert "does not fetch remote images" in error.message
    assert server.hits == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["fd00::1"],
        ["fe80::1%eth0"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        [],
    ],
)
def test_names_of_inner_addresses(server: Server, addresses: list[str]) -> None:
    url = f"http://pictures.test:{server.port}/secret"
    error = refusal(url, near(server, public=False), [addresses])
    assert error.code == "failed_to_download_image"
    assert server.hits == []


@pytest.mark.parametrize(
    "address",
    ["fec0::1", "feff::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
)
def test_addresses_that_only_look_public(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert all(map(is_public, ("8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e")))


CANARIES = (
    "http://127.0.0.1:{port}/",
    "http://localhost.:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://good.test@127.0.0.1:{port}/",
    "http://user:word@good.test:{port}/",
    "http://127.0.0.1:{port}\\@good.test/",
    "http://good.test\\@127.0.0.1:{port}/",
    "http://good.test:{port}/\r\nhost: x",
    "http://good.test:1/",
    "http://good.test/",
    "https://good.test:{port}/",
    "http:///{port}",
    "http://",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@good.test/",
)


@pytest.mark.parametrize("url", CANARIES)
def test_spellings_that_mean_something_else(server: Server, url: str) -> None:
    error = refusal(url.format(port=server.port), near(server))
    assert error.code in {"invalid_image_url", "failed_to_download_image"}
    assert server.hits == []


def test_only_listed_hosts(server: Server) -> None:
    policy = near(server)
    listed = MediaPolicy(True, ("good.test",), None, policy.schemes, policy.ports, policy.public)
    assert fetch(f"http://GOOD.test:{server.port}/", listed) == b"picture"
    for host in ("bad.test", "good.test.bad.test", "xgood.test", "a.good.test"):
        assert refusal(f"http://{host}:{server.port}/", listed).code == "invalid_image_url"
    assert len(server.hits) == 1


def test_redirects_are_checked_again(server: Server) -> None:
    base = f"http://good.test:{server.port}"
    answers = [["127.0.0.1"], ["127.0.0.1"]]
    assert fetch(f"{base}/to?/a", near(server), answers) == b"picture"
    inner = [["127.0.0.1"], ["10.0.0.1"]]
    assert refusal(f"{base}/to?/a", near(server), inner).code == "failed_to_download_image"
    for target in ("file:///etc/passwd", f"http://127.0.0.1:{server.port}/", "ftp://x/"):
        assert refusal(f"{base}/to?{target}", near(server)).code == "invalid_image_url"
    loop = refusal(f"{base}/to?/to?/to?/to?/to?/a", near(server), answers * 9)
    assert loop.code == "failed_to_download_image"


@pytest.mark.parametrize(
    ("path", "code"),
    [("/missing", "failed_to_download_image"), ("/endless", "image_file_too_large")],
)
def test_what_comes_back_is_bounded_and_not_told(server: Server, path: str, code: str) -> None:
    assert refusal(f"http://good.test:{server.port}{path}", near(server)).code == code


def test_files_below_the_folder_and_no_others(tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    (root / "a b.png").write_bytes(b"picture")
    (root / "large.png").write_bytes(bytes(1001))
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    policy = MediaPolicy(root=root)
    assert fetch(f"file://{root}/a%20b.png", policy) == b"picture"
    assert refusal(f"file://{root}/large.png", policy).code == "image_file_too_large"
    for path in ("link", "../secret", "%2e%2e/secret", "", "none", "a b.png/..", "\0"):
        assert refusal(f"file://{root}/{path}", policy).code == "image_file_not_found"
    for url in ("file:///etc/passwd", "file:secret", "file:///dev/zero"):
        assert refusal(url, policy).code == "image_file_not_found"
    assert refusal(f"file://{root}/a%20b.png", MediaPolicy()).code == "invalid_image_url"
