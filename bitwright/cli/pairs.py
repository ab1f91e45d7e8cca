"""Options of the form NAME=VALUE that may be repeated."""

from __future__ import annotations

import typer


def read_pairs(texts: list[str] | tuple[()], option: str, form: str) -> dict[str, str]:
    """Read what such an option was given.

    Args:
        texts: As written.
        option: The option.
        form: Its form, with an example.

    Returns:
        Name -> value.

    Raises:
        BadParameter: If one is not of this form, or a name has two values.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")  # tensor names may hold an equals sign, numbers never do
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not of the form {form}", param_hint=option)
        if found.setdefault(name, value) != value:
            raise typer.BadParameter(
                f"{name} is given {found[name]} and {value}; write it once", param_hint=option
            )
    return found
