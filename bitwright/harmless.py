"""Text for terminals: names in models and samples come from strangers, and terminals obey control characters."""

from __future__ import annotations

_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})


def harmless(text: str) -> str:
    """Leave out what a terminal would obey instead of showing it.

    Args:
        text: Any text.

    Returns:
        The text without control characters other than ends of lines and tabs.
    """
    return text.translate(_CONTROL)
