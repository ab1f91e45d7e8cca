"""Where the service is, and who asks."""

from __future__ import annotations

import os
from typing import Any

import httpx

from bitwright.errors import AuthenticationError, InvalidRequestError

DEFAULT_URL = "http://127.0.0.1:8000"


def client_options(url: str | None, api_key: str | None, timeout: float, transport: Any) -> dict[str, Any]:
    """Put together what either of httpx's clients is made with.

    Args:
        url: Address of the service; by default the environment's `BITWRIGHT_URL`, else `http://127.0.0.1:8000`.
        api_key: The key to show; by default the environment's `BITWRIGHT_API_KEY`, if there is one.
        timeout: Seconds to wait for an answer.
        transport: What carries the requests; None for httpx's own.

    Returns:
        Its keyword arguments.
    """
    key = _checked_key((api_key or os.environ.get("BITWRIGHT_API_KEY") or "").strip())
    return {
        "base_url": _checked(url or os.environ.get("BITWRIGHT_URL") or DEFAULT_URL),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout,
        "transport": transport,
        "follow_redirects": True,  # results may lie in a bucket; httpx shows the key to no other host
    }


def _checked(url: str) -> str:
    try:
        read = httpx.URL(url)
        known = read.scheme in {"http", "https"} and read.host and (read.port or 0) < 2**16
    except httpx.InvalidURL:
        known = False
    if not known:
        raise InvalidRequestError(
            "this is not the address of a service.",
            remedy="Write http://host:port, or https://host.",
            where=url,
            code="url",
        )
    return url


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise AuthenticationError(
            "The API key has characters that no key has.",
            remedy="Copy it again, as `bitwright admin keys create` printed it.",
            where="BITWRIGHT_API_KEY",
            code="key",
        )
    return key
