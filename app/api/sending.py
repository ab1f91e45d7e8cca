"""Sends a file of a result: whole, a stretch of it, or not at all where the client has it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Header
from fastapi.responses import FileResponse, Response
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from app.api.problems import ProblemError, responses


@dataclass(frozen=True)
class Conditions:
    """What a client has of a file already.

    Attributes:
        if_none_match: Entity tags of what it has whole.
        stretch: What it wants.
        if_range: The entity tag of what it has in part.
    """

    if_none_match: str | None
    stretch: str | None
    if_range: str | None


def _conditions(
    if_none_match: Annotated[
        str | None, Header(description="ETag of what is here already; 304 where it is the same.")
    ] = None,
    stretch: Annotated[
        str | None,
        Header(alias="Range", description="`bytes=FIRST-` or `bytes=FIRST-LAST`: only these bytes, as 206."),
    ] = None,
    if_range: Annotated[
        str | None,
        Header(description="ETag that Range refers to; where it is another, all of the file is sent."),
    ] = None,
) -> Conditions:
    return Conditions(if_none_match, stretch, if_range)


ConditionsDep = Annotated[Conditions, Depends(_conditions)]

_HEADERS = {
    "ETag": {"description": "Changes with the content.", "schema": {"type": "string"}},
    "Repr-Digest": {"description": "SHA-256 of the whole content (RFC 9530).", "schema": {"type": "string"}},
}


def answers(content: dict[str, Any], description: str = "The file.") -> dict[int | str, dict[str, Any]]:
    """Describe what a route that sends a file answers.

    Args:
        content: Its media types.
        description: What it is.

    Returns:
        What FastAPI's `responses` wants.
    """
    return {
        200: {"description": description, "content": content, "headers": _HEADERS},
        206: {"description": "The bytes that Range asks for.", "content": content, "headers": _HEADERS},
        304: {"description": "What If-None-Match names is what the file still is."},
        **responses(400, 404, 409, 416, 422),
    }


def send_file(
    path: Callable[[], Path],
    digest: str,
    conditions: Conditions,
    *,
    media_type: str,
    filename: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Send a file.

    Args:
        path: Gives the file; asked only where something of it is to be sent, for it may have to be fetched.
        digest: Its SHA-256, in hexadecimal, which is its entity tag.
        conditions: What the client has.
        media_type: What it is.
        filename: What to call it.
        headers: More headers.

    Returns:
        The answer.
    """
    tag = f'"{digest}"'
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    sent = {"ETag": tag, "Repr-Digest": f"sha-256=:{encoded}:", **(headers or {})}
    if conditions.if_none_match is not None and _named(tag, conditions.if_none_match):
        return Response(status_code=304, headers=sent)
    found = path()
    if conditions.stretch is not None and conditions.if_range in {None, tag}:
        _check_range(conditions.stretch, found.stat().st_size)
    return FileResponse(found, media_type=media_type, filename=filename, headers=sent)


def _named(tag: str, tags: str) -> bool:
    return tags.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in tags.split(",")}


def _check_range(stretch: str, size: int) -> None:
    try:
        FileResponse._parse_range_header(stretch, size)  # what the answer does itself, in words of its own
    except MalformedRangeHeader as error:
        raise ProblemError(
            400,
            "range",
            "The range cannot be read.",
            remedy="Write bytes=FIRST-LAST, or bytes=FIRST-.",
            where="Range",
        ) from error
    except RangeNotSatisfiable as error:
        raise ProblemError(
            416,
            "range",
            f"The file has {size} bytes.",
            remedy="Ask for bytes that it has, or for all of it.",
            where="Range",
            headers={"Content-Range": f"bytes */{size}"},
        ) from error
