"""What a user wrote, as messages repeat it."""

from __future__ import annotations

import json
from typing import Any

_LONGEST = 80


def quote(value: Any) -> str:
    """Write a value as it stands in a request.

    Args:
        value: Anything.

    Returns:
        Text in quotes, all else as JSON where it can be; the beginning alone where that is long.
    """
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
