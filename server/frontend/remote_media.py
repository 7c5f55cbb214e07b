"""Files that a client names instead of sending: fetched for it only where the operator allows it.

The one place that opens an address or a path of a client. A name is resolved once, every address
that it has must be a public one, and the connection goes to an address that was checked, so no
second answer of a name server counts. Redirects are followed by hand and checked like the first
address. Nothing of what came back is ever told: all failures of a fetch look alike.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx

from server.errors import ApiError, invalid
from server.frontend.data_url import MediaKind

REDIRECTS_MAX = 3
CONNECT_S = 3.0
TOTAL_S: Mapping[MediaKind, float] = {"image": 10.0, "video": 30.0}
FETCHES_MAX = 8
"""At the same time; more wait within their time."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

TRANSLATED = tuple(
    map(
        ipaddress.ip_network,
        (
            "::/96",
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "2001::/32",
        ),
    )
)
"""IPv6 addresses that stand for an IPv4 address, which may be any."""
SITE_LOCAL = ipaddress.ip_network("fec0::/10")
"""Given up for fd00::/8, but some networks still have them, and Python takes them for global."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: str) -> bool:
    """Whether anybody on the internet could have asked this address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return False
    inner = any(parsed in network for network in (*TRANSLATED, SITE_LOCAL))
    return parsed.is_global and not parsed.is_multicast and not inner


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """What may be fetched."""

    remote: bool = False
    domains: tuple[str, ...] = ()
    """Exact host names; empty for any."""
    root: Path | None = None
    """Folder of files that `file:` URLs may name."""
    schemes: tuple[str, ...] = ("https",)
    ports: tuple[int, ...] = (443,)
    public: Callable[[str], bool] = is_public


class MediaFetcher:
    """Fetches what clients name."""

    def __init__(self, policy: MediaPolicy, resolve: Resolve = resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._tls: ssl.SSLContext | None = None

    def fetches(self, url: str) -> bool:
        """Whether an address is one for this class at all, and not data of its own."""
        return url.strip().lower().startswith(("http:", "https:", "file:"))

    async def fetch(
        self, url: str, max_bytes: int, param: str | None, kind: MediaKind = "image"
    ) -> bytes:
        """The file at an address.

        Raises:
            ApiError: 400; the operator does not allow it, or it could not be had.
        """
        if url.strip().lower().startswith("file:"):
            return await asyncio.to_thread(self._read_file, url.strip(), max_bytes, param, kind)
        if not self._policy.remote:
            raise invalid(
                f"This server does not fetch remote {kind}s; send a data: URL with the {kind}.",
                param=param,
                code=f"invalid_{kind}_url",
            )
        try:
            async with asyncio.timeout(TOTAL_S[kind]), self._slots:
                return await self._follow(url, max_bytes, param, kind)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            raise _failed(param, kind) from None

    async def _follow(self, url: str, max_bytes: int, param: str | None, kind: MediaKind) -> bytes:
        target = self._checked(url, param, kind)
        async with self._client() as http:
            for _ in range(1 + REDIRECTS_MAX):
                request = await self._pinned(http, target, param, kind)
                response = await http.send(request, stream=True)
                try:
                    if not response.is_redirect:
                        return await _read(response, max_bytes, param, kind)
                    location = response.headers.get("location", "")
                finally:
                    await response.aclose()
                target = self._checked(str(target.join(location)), param, kind)
        raise _failed(param, kind)

    def _client(self) -> httpx.AsyncClient:
        """A new one for each fetch: a kept connection would be found by its address, not its name.
        Proxies and credentials of the environment are not used."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TOTAL_S["video"], connect=CONNECT_S),
            verify=self._tls,
        )

    def _checked(self, url: str, param: str | None, kind: MediaKind) -> httpx.URL:
        """The address as it will be asked, by the one parser that will ask it."""
        try:
            target = httpx.URL(url)
            host = target.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise _refused("It is not a valid URL.", param, kind) from None
        policy = self._policy
        if target.scheme not in policy.schemes:
            raise _refused(f"Only {' and '.join(policy.schemes)} URLs are fetched.", param, kind)
        if target.userinfo or "\\" in url or any(ord(char) <= 0x20 for char in url.strip()):
            raise _refused("It holds credentials, backslashes or control characters.", param, kind)
        if (target.port or policy.ports[0]) not in policy.ports:
            raise _refused("Its port is not allowed.", param, kind)
        if not host or host.endswith(".") or _is_literal(host):
            raise _refused("Its host must be a name.", param, kind)
        if policy.domains and host not in policy.domains:
            raise _refused(
                "Its host is not among those that this server fetches from.", param, kind
            )
        return target

    async def _pinned(
        self, http: httpx.AsyncClient, target: httpx.URL, param: str | None, kind: MediaKind
    ) -> httpx.Request:
        """A request to an address of the name that was checked; certificate and Host stay those of
        the name."""
        host = target.raw_host.decode("ascii")
        addresses = await self._resolve(host, target.port or self._policy.ports[0])
        if not addresses or not all(self._policy.public(address) for address in addresses):
            raise _failed(param, kind)
        return http.build_request(
            "GET",
            target.copy_with(host=addresses[0]),
            headers={
                "host": target.netloc.decode("ascii"),
                "accept-encoding": "identity",
                "user-agent": "internvl-serve",
            },
            extensions={"sni_hostname": host},
        )

    def _read_file(self, url: str, max_bytes: int, param: str | None, kind: MediaKind) -> bytes:
        root = self._policy.root
        if root is None:
            raise _refused("This server does not open files.", param, kind)
        path = unquote(url[len("file:") :].removeprefix("//").removeprefix("localhost"))
        missing = invalid(
            f"The {kind} file was not found.", param=param, code=f"{kind}_file_not_found"
        )
        try:
            real = Path(path).resolve(strict=True)
            if not real.is_relative_to(root.resolve(strict=True)):
                raise missing
            # Not blocking, or a pipe would be waited for.
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError, RuntimeError):
            raise missing from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise missing
            if status.st_size > max_bytes:
                raise _too_large(max_bytes, param, kind)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(max_bytes)
        finally:
            os.close(descriptor)


async def _read(
    response: httpx.Response, max_bytes: int, param: str | None, kind: MediaKind
) -> bytes:
    if response.status_code != 200:
        raise _failed(param, kind)
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > max_bytes:
            raise _too_large(max_bytes, param, kind)
    return bytes(data)


def _is_literal(host: str) -> bool:
    """Addresses in any spelling that some resolver takes for one: 127.1, 0x7f000001, [::1]."""
    last = host.rsplit(".", 1)[-1]
    return ":" in host or last.isdecimal() or last.lower().startswith("0x")


def _refused(reason: str, param: str | None, kind: MediaKind) -> ApiError:
    return invalid(f"The URL is not allowed. {reason}", param=param, code=f"invalid_{kind}_url")


def _failed(param: str | None, kind: MediaKind) -> ApiError:
    return invalid(
        f"The {kind} could not be downloaded.", param=param, code=f"failed_to_download_{kind}"
    )


def _too_large(max_bytes: int, param: str | None, kind: MediaKind) -> ApiError:
    return invalid(
        f"The {kind} file is larger than the limit of {max_bytes} bytes.",
        param=param,
        code=f"{kind}_file_too_large",
    )
