"""Where the service is, and who asks."""

from __future__ import annotations

import os
from typing import Any

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
    key = api_key or os.environ.get("BITWRIGHT_API_KEY")
    return {
        "base_url": url or os.environ.get("BITWRIGHT_URL") or DEFAULT_URL,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout,
        "transport": transport,
        "follow_redirects": True,  # results may lie in a bucket; httpx shows the key to no other host
    }
