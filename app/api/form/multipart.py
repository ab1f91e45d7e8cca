"""Reads a multipart body as it comes and writes its files straight to disk: memory stays small whatever is sent."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn, Protocol
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.api.problems import ProblemError

_BLOCK = 2**20
_FIELD_LIMIT = 2**20
_TEXTS_LIMIT = 2 * 2**20
"""Texts are kept in memory, however many parts they come in."""


class Intake(Protocol):
    """Decides what becomes of each part."""

    def accept(self, name: str, filename: str | None) -> Path | None:
        """Say where a part goes.

        Args:
            name: Name of the form field.
            filename: Name of the file, if the client gave one.

        Returns:
            The path of a new file, or None to keep the part in memory as text.
        """
        ...


@dataclass
class Received:
    """What was in the body.

    Attributes:
        texts: Small parts by name, each in the order they came.
        files: How many bytes went to each file.
        digests: SHA-256 of each file, in hexadecimal.
    """

    texts: dict[str, list[bytes]] = field(default_factory=dict)
    files: dict[Path, int] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)


async def receive(body: AsyncIterator[bytes], content_type: str, intake: Intake, limit: int) -> Received:
    """Read a body to its end.

    Args:
        body: Chunks as they arrive.
        content_type: The request's header, with the boundary.
        intake: Decides what becomes of each part.
        limit: The most bytes all parts may have together.

    Returns:
        What was in it.

    Raises:
        ProblemError: If it is not multipart, is cut off, is malformed, or is too large.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ProblemError(
            415,
            "not_multipart",
            "The body must be multipart/form-data.",
            remedy="Send the files as form parts, for example: curl -F model=@model.onnx -F data=@calib.npz",
        )
    parts = _Parts(intake)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_end": parts.finish,
            },
        )
        total = 0
        async for chunk in body:
            total += len(chunk)
            if total > limit:
                refuse_size(limit)
            parser.write(chunk)
            if parts.pending >= _BLOCK:
                await asyncio.to_thread(parts.flush)
        await asyncio.to_thread(parts.flush)
    except FormParserError as error:
        _refuse_body(str(error))
    finally:
        parts.close()
    if not parts.complete:
        _refuse_body("it ends in the middle of a part")
    return parts.received


def refuse_announced(request: Request, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read.

    Args:
        request: The request.
        limit: The most bytes that are taken.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        refuse_size(limit)


def refuse_size(limit: int) -> NoReturn:
    """Refuse an upload for its size.

    Args:
        limit: The most bytes that are taken.

    Raises:
        ProblemError: Always.
    """
    raise ProblemError(
        413,
        "too_large",
        f"The upload is larger than the {limit} bytes this service takes.",
        remedy="Send fewer samples, or raise BITWRIGHT_UPLOAD_LIMIT.",
    )


def _refuse_body(what: str) -> NoReturn:
    raise ProblemError(
        400, "malformed_body", f"The multipart body is malformed: {what}.", remedy="Send the request again."
    )


def _file_name(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    # Some clients write names beyond ASCII as RFC 5987 says, and the parser leaves that form out.
    extended = re.search(rb"filename\*\s*=\s*utf-8'[^']*'([^;\s]*)", disposition, re.IGNORECASE)
    if extended is not None:
        return unquote(extended[1].decode("ascii", "replace"))
    return options[b"filename"].decode("utf-8", "replace") if b"filename" in options else None


class _Parts:
    """Turns the parser's callbacks into files and texts."""

    def __init__(self, intake: Intake) -> None:
        self.received = Received()
        self.pending = 0
        self.complete = False
        self._intake = intake
        self._blocks: list[tuple[_File, bytes]] = []
        self._open: list[_File] = []
        self._path: Path | None = None
        self._name = ""
        self._texts = 0

    def begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._path = self._intake.accept(self._name, _file_name(disposition, options))
        if self._path is None:
            self.received.texts.setdefault(self._name, []).append(b"")
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open.append(_File(self._path))
            self.received.files[self._path] = 0

    def data(self, data: bytes, start: int, end: int) -> None:
        block = data[start:end]
        if self._path is None:
            text = self.received.texts[self._name][-1] + block
            self._texts += len(block)
            if len(text) > _FIELD_LIMIT or self._texts > _TEXTS_LIMIT:
                most = _FIELD_LIMIT if len(text) > _FIELD_LIMIT else _TEXTS_LIMIT
                whose = "part is" if most == _FIELD_LIMIT else "parts without files are together"
                raise ProblemError(
                    413,
                    "too_large",
                    f"The {whose} larger than {most} bytes.",
                    remedy="Send less text.",
                    where=self._name,
                )
            self.received.texts[self._name][-1] = text
        else:
            self._blocks.append((self._open[-1], block))
            self.received.files[self._path] += len(block)
            self.pending += len(block)

    def finish(self) -> None:
        self.complete = True

    def flush(self) -> None:
        for file, block in self._blocks:
            file.content.write(block)
            file.hash.update(block)
        self._blocks.clear()
        self.pending = 0
        for done in self._open[:-1]:
            self._done(done)
        del self._open[:-1]

    def close(self) -> None:
        self._blocks.clear()
        for file in self._open:
            self._done(file)
        self._open.clear()

    def _done(self, file: _File) -> None:
        file.content.close()
        self.received.digests[file.path] = file.hash.hexdigest()


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: IO[bytes] = path.open("xb")
        self.hash = hashlib.sha256()
