"""The page at `/` and its files, read once and served from memory."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response

_FOLDER = Path(__file__).parent / "static"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""No script but the page's own, nothing from elsewhere."""


@dataclass(frozen=True)
class _File:
    content: bytes
    packed: bytes
    media_type: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> _File:
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix], tag)

    def answer(self, request: Request) -> Response:
        headers = {
            "ETag": self.tag,
            "Cache-Control": "no-cache",  # asked for anew each time, and then answered by 304
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Vary": "Accept-Encoding",
        }
        if self.tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            packed = headers | {"Content-Encoding": "gzip"}
            return Response(self.packed, media_type=self.media_type, headers=packed)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page_paths() -> frozenset[str]:
    """Give the addresses of the page and its files, which anyone may read: they hold nothing of anybody.

    Returns:
        Paths from the root.
    """
    return frozenset({"/"} | {f"/{path.name}" for path in _FOLDER.iterdir() if path.name != _INDEX})


def install(app: FastAPI) -> None:
    """Serve the page at `/` and its files beside it.

    Args:
        app: The application.
    """
    for path in _FOLDER.iterdir():
        address = "/" if path.name == _INDEX else f"/{path.name}"
        file = _File.read(path)
        app.add_route(address, file.answer, methods=["GET"], include_in_schema=False)
