"""Sending a large file: nothing where the service has it already, only the rest where a connection broke."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx

from bitwright.errors import ConflictError, NotFoundError, ServiceBusyError
from bitwright.operations.answers import check, refuse
from bitwright.steps import Ask, FileBody, Operation, Pause, Send, Work

LARGE = 16 * 2**20
"""From this many bytes on a file is sent by itself, ahead of the form."""

_PAUSE = 1.0
_SILENCE = 300.0

OnBytes = Callable[[str, int, int], None]
"""Told a file's name, how many of its bytes the service has, and how many there are."""


def upload(path: Path, tries: int, on_bytes: OnBytes | None = None) -> Operation[str]:
    """Send a file.

    The upload's id is the content's SHA-256, so that a later try, also of another process, finds what is there.

    Args:
        path: The file.
        tries: How often to try again without getting any further.
        on_bytes: Told how far it is.

    Returns:
        The upload's id.

    Raises:
        ServiceUnreachableError: If the connection breaks again and again.
        ConflictError: If someone else goes on with this upload.
        ServiceBusyError: If the service stays busy.
    """
    digest: str = yield Work(lambda: file_digest(path))
    size = path.stat().st_size
    tell = (lambda done: on_bytes(path.name, done, size)) if on_bytes is not None else None
    left, furthest = tries, -1
    while True:
        offset = yield from _offset(digest)
        if tell is not None:
            tell(size if offset is None else offset)
        if offset is None:
            return digest
        if offset > furthest:
            left, furthest = tries, offset
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(size),
            "Content-Type": "application/octet-stream",
        }
        try:
            response: httpx.Response = yield Send(
                "PUT",
                f"/uploads/{digest}",
                headers=headers,
                body=FileBody(path, offset, tell),
                timeout=(30.0, _SILENCE),
            )
            check(response)
        except httpx.TransportError as error:
            if left == 0:
                refuse(error)
        except (ConflictError, ServiceBusyError):
            if left == 0:
                raise
        else:
            continue  # the service says what it has
        left -= 1
        yield Pause(_PAUSE)


def file_digest(path: Path) -> str:
    """Compute a file's SHA-256.

    Args:
        path: The file.

    Returns:
        The digest in hexadecimal.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _offset(digest: str) -> Operation[int | None]:
    """How many bytes the service has; None if it has all."""
    try:
        response: httpx.Response = yield Ask(Send("HEAD", f"/uploads/{digest}"))
    except NotFoundError:
        return 0
    return None if response.headers.get("Upload-Complete") == "?1" else int(response.headers["Upload-Offset"])
