"""The settings as a list: what each means, what it is by default, and what it is now."""

from __future__ import annotations

import re

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from app.api.description.described import attributes
from app.settings import Settings

FOR_TESTS = frozenset({"engine", "validator", "analyzer", "analysis_validator", "inspector"})
"""Name the parts of the engine; others than the real ones serve tests."""


def settings_table(now: Settings | None = None) -> str:
    """Write all settings down.

    Args:
        now: What a service is told; by default nothing, and no values are given.

    Returns:
        A table in Markdown; of secrets it tells only whether they are set.
    """
    meanings = _meanings()
    head = ["environment", "meaning", "default"] + ([] if now is None else ["now"])
    rows = [head, ["---"] * len(head)]
    for name, field in Settings.model_fields.items():
        if name in FOR_TESTS:
            continue
        default = "" if field.default is PydanticUndefined else _plain(field.default)
        row = [f"`BITWRIGHT_{name.upper()}`", meanings[name], default]
        rows.append(row + ([] if now is None else [_plain(getattr(now, name))]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _meanings() -> dict[str, str]:
    return {name: meaning.rstrip(".") for name, meaning in attributes(Settings).items()}


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    text = re.sub(r"(://[^:/@]*:)[^@/]+@", r"\1***@", str(value))
    return f"`{text}`" if text else ""
