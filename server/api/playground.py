"""The playground: one page at `/` and the files that it is made of, served from package data.

The files are read once, and a request names one of them or gets 404: no path leads out of the
folder. The policy lets the page run its own scripts, talk to its own server, and nothing else; with
Trusted Types the browser itself refuses to read text as markup. All addresses in the page are
relative, so it works under any sub-path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import server

FOLDER = Path(server.__file__).parent / "playground"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Files of other kinds, such as licences, are not served."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src blob: mediastream:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def playground_routes() -> APIRouter:
    files = {path.relative_to(FOLDER).as_posix(): _read(path) for path in _paths()}
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(files["index.html"], request)

    @router.api_route("/playground/{name:path}", methods=["GET", "HEAD"])
    async def part(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404)
        return _answer(files[name], request)

    return router


def playground_paths() -> frozenset[str]:
    """Every path of the page: none tells more than the package does, so none needs a key."""
    return frozenset({"/", *(f"/playground/{p.relative_to(FOLDER).as_posix()}" for p in _paths())})


def _paths() -> list[Path]:
    return [path for path in sorted(FOLDER.rglob("*")) if path.suffix in MEDIA_TYPES]


def _read(path: Path) -> _File:
    content = path.read_bytes()
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    return _File(content, MEDIA_TYPES[path.suffix], etag)


def _answer(file: _File, request: Request) -> Response:
    headers = {**HEADERS, "etag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
