"""The headers of a resumable upload, in the words of the IETF's draft on them, RFC 9530 and RFC 9110."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from app.api.problems import ProblemError

_NUMBER = re.compile(r"\d{1,15}")
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):")


@dataclass(frozen=True)
class Sent:
    """What a client says of the bytes it sends.

    Attributes:
        offset: Where they begin.
        length: Bytes of the whole content, where they are known.
        last: Whether they are the last, where the length does not tell.
        digest: SHA-256 of the whole content in hexadecimal, if it is told.
    """

    offset: int
    length: int | None
    last: bool
    digest: str | None


def read_headers(headers: Mapping[str, str]) -> Sent:
    """Read what a client says of the bytes it sends.

    Args:
        headers: `Upload-Offset` or `Content-Range`, `Upload-Length`, `Upload-Complete`, `Repr-Digest`; all may be
            missing.

    Returns:
        What they say.
    """
    offset = _number(headers, "upload-offset")
    length = _number(headers, "upload-length")
    if "content-range" in headers:  # what curl sends with --continue-at
        found = _RANGE.fullmatch(headers["content-range"])
        if found is None or (offset is not None and offset != int(found[1])):
            _refuse("content-range", "bytes FIRST-LAST/TOTAL, like Upload-Offset where that is sent too")
        offset = int(found[1])
        length = length if found[3] == "*" else int(found[3])
    complete = headers.get("upload-complete", "?1")
    if complete not in {"?0", "?1"}:
        _refuse("upload-complete", "?0 or ?1")
    return Sent(offset or 0, length, complete == "?1", _digest(headers.get("repr-digest")))


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if _NUMBER.fullmatch(value) is None:
        _refuse(name, "a number of bytes")
    return int(value)


def _digest(value: str | None) -> str | None:
    if value is None:
        return None
    found = _DIGEST.search(value)
    try:
        digest = base64.b64decode(found[1] if found else "", validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        _refuse("repr-digest", "sha-256=:BASE64: of the whole content")
    return digest.hex()


def _refuse(name: str, form: str) -> NoReturn:
    raise ProblemError(
        400,
        "header",
        "The header cannot be read.",
        remedy=f"Write {form}, or leave it out.",
        where="-".join(word.capitalize() for word in name.split("-")),
    )
