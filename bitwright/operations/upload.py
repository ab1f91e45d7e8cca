"""Sending a large file: nothing where the service has it already, only the rest where a connection broke."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import BaseModel

from bitwright.errors import ConflictError, NotFoundError, ResponseError, ServiceBusyError
from bitwright.file_digest import file_digest
from bitwright.operations.answers import check, refuse
from bitwright.requests import read_answer, refuse_answer
from bitwright.steps import Ask, FileBody, Operation, Pause, Send, Work

LARGE = 16 * 2**20
"""From this many bytes on a file is sent by itself, ahead of the form."""

_PAUSE = 1.0
_SILENCE = 300.0
_CHECK = 1800.0
"""The service reads what it did not see on its way before it says that it is complete."""

_JSON = {"Content-Type": "application/json"}

OnBytes = Callable[[str, int, int], None]
"""Told a file's name, how many of its bytes the service has, and how many there are."""


class _Part(BaseModel):
    url: str
    offset: int
    bytes: int


class _Parts(BaseModel):
    parts: tuple[_Part, ...]


def upload(path: Path, tries: int, on_bytes: OnBytes | None = None) -> Operation[str]:
    """Send a file.

    The upload's id is the content's SHA-256, so that a later try, also of another process, finds what is there. Where
    the service has clients write to its bucket, the parts go there.

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
    if (yield from _direct(path, digest, size, tries, tell)):
        return digest
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
                body=FileBody(path, offset, on_bytes=tell),
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


def _offset(digest: str) -> Operation[int | None]:
    """How many bytes the service has; None if it has all."""
    try:
        response: httpx.Response = yield Ask(Send("HEAD", f"/uploads/{digest}"))
    except NotFoundError:
        return 0
    if response.headers.get("Upload-Complete") == "?1":
        return None
    told = response.headers.get("Upload-Offset", "")
    if not told.isdecimal():
        refuse_answer()
    return int(told)


def _direct(
    path: Path, digest: str, size: int, tries: int, tell: Callable[[int], None] | None
) -> Operation[bool]:
    """Send a file to the service's bucket; False where the service takes it itself."""
    left, fewest = tries, size + 1
    while True:
        parts = yield from _parts(digest, size)
        if parts is None:
            return False
        if not parts:
            break
        missing = size - parts[0].offset
        left, fewest = (tries, missing) if missing < fewest else (left - 1, fewest)
        for part in parts:
            body = FileBody(path, part.offset, part.bytes, tell)
            try:
                response: httpx.Response = yield Send("PUT", part.url, body=body, timeout=(30.0, _SILENCE))
                check(response)
            except (httpx.TransportError, ResponseError) as error:  # also an address whose time is over
                if left == 0:
                    if isinstance(error, httpx.TransportError):
                        refuse(error)
                    raise
                yield Pause(_PAUSE)
                break
    told = json.dumps({"bytes": size, "sha256": digest}).encode()
    yield Ask(Send("POST", f"/uploads/{digest}/complete", headers=_JSON, body=told, timeout=(30.0, _CHECK)))
    if tell is not None:
        tell(size)
    return True


def _parts(digest: str, size: int) -> Operation[tuple[_Part, ...] | None]:
    """The parts that the service's bucket does not have; None where the service takes the file itself."""
    body = json.dumps({"bytes": size}).encode()
    try:
        response: httpx.Response = yield Ask(
            Send("POST", f"/uploads/{digest}/parts", headers=_JSON, body=body)
        )
    except (ConflictError, NotFoundError) as error:
        if error.code in {"not_direct", "not_found", "404"}:  # a service that knows nothing of it is older
            return None
        raise
    return read_answer(_Parts, response.content).parts
