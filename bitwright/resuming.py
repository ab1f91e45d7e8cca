"""Downloads that go on where a connection broke: byte ranges under the condition that the content is the same."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace

import httpx

from bitwright.steps import Save, Saved, Send

_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):")


def going_on(step: Save) -> Send:
    """Ask for what a file does not have yet.

    Args:
        step: What to fetch, and how much of it is there.

    Returns:
        The request; for all of it where nothing that can be relied on is there.
    """
    headers = {"Accept-Encoding": "identity", **step.request.headers}
    if step.saved.bytes and step.saved.tag:
        headers |= {"Range": f"bytes={step.saved.bytes}-", "If-Range": step.saved.tag}
    return replace(step.request, headers=headers)


def begin(saved: Saved, response: httpx.Response) -> str:
    """Read from an answer's headers what its body is.

    Args:
        saved: What is there; told what it will be.
        response: The answer, an error excepted.

    Returns:
        How to open the file: for all of the content, or for the rest.
    """
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code == httpx.codes.PARTIAL_CONTENT and found and int(found[1]) == saved.bytes:
        return "ab"
    tag = response.headers.get("ETag", "")
    saved.bytes, saved.tag = 0, "" if tag.startswith("W/") else tag
    saved.digest = _digest(response.headers.get("Repr-Digest", ""))
    return "wb"


def _digest(header: str) -> str:
    found = _DIGEST.search(header)
    try:
        return "" if found is None else base64.b64decode(found[1], validate=True).hex()
    except binascii.Error:
        return ""
