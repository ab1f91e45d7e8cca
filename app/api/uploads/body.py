"""Writes the body of `PUT /uploads/{id}` to its file: one block is hashed and written while the next arrives."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from app.storage import file_digest

_BLOCK = 2**20


class TooLargeError(Exception):
    """The body is larger than allowed."""


class BusyError(Exception):
    """Another service process writes to this file."""


class Hash(Protocol):
    """What of hashlib's objects is used here."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes.

        Args:
            data: The bytes.
        """
        ...

    def hexdigest(self) -> str:
        """Tell the digest of all bytes so far.

        Returns:
            It, in hexadecimal.
        """
        ...


async def append(body: AsyncIterator[bytes], file: Path, offset: int, limit: int) -> tuple[int, Hash | None]:
    """Write a body behind what a file holds; what came before a break stays.

    Args:
        body: The bytes as they arrive.
        file: The file; at offset 0 it is begun anew.
        offset: Bytes it holds already.
        limit: The most bytes it may hold.

    Returns:
        Bytes it holds now, and the hash of all of them where it was written from the start.

    Raises:
        TooLargeError: If more than the limit comes.
        BusyError: If another process writes to the file.
    """
    hashed: Hash | None = hashlib.sha256() if offset == 0 else None
    file.touch()
    with file.open("r+b", buffering=0) as out:
        _lock(out)
        out.seek(offset)
        out.truncate()
        blocks: list[bytes] = []
        waiting = 0
        writing: asyncio.Future[None] | None = None
        try:
            async for chunk in body:
                offset += len(chunk)
                if offset > limit:
                    raise TooLargeError
                blocks.append(chunk)
                waiting += len(chunk)
                if waiting >= _BLOCK:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(_write, out, hashed, blocks))
                    blocks, waiting = [], 0
        finally:  # also where the client goes away: it comes back for the rest
            if writing is not None:
                await asyncio.shield(writing)
            _write(out, hashed, blocks)
    return offset, hashed


async def digest_of(file: Path, hashed: Hash | None) -> str:
    """Tell a file's SHA-256.

    Args:
        file: The file.
        hashed: The hash of its content, where it was computed on the way.

    Returns:
        The digest in hexadecimal.
    """
    return hashed.hexdigest() if hashed is not None else await asyncio.to_thread(file_digest, file)


def _lock(out: IO[bytes]) -> None:
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError from error


def _write(out: IO[bytes], hashed: Hash | None, blocks: Sequence[bytes]) -> None:
    for block in blocks:
        if hashed is not None:
            hashed.update(block)
        rest = memoryview(block)
        while rest:
            rest = rest[out.write(rest) :]
