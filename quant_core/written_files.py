"""Files that one of our commands wrote, and a user names to another."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from quant_core.errors import SpecError
from quant_core.spec.wrong_field import what_is_wrong

Written = TypeVar("Written", bound=BaseModel)


def read_written(kind: type[Written], path: Path, writer: str, remedy: str) -> Written:
    """Read such a file.

    Args:
        kind: What it holds.
        path: The file.
        writer: What writes such files, as in "an analysis".
        remedy: What to name instead.

    Returns:
        What it holds.

    Raises:
        SpecError: If it cannot be read, or holds something else; names the field.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(
            f"it cannot be read ({error.strerror}).", remedy=remedy, where=place_of(path)
        ) from error
    except ValidationError as error:
        wrong = error.errors()[0]
        place = f" at {'.'.join(map(str, wrong['loc']))}" if wrong["loc"] else ""
        raise SpecError(
            f"it is not what {writer} of this version writes{place}: {what_is_wrong(wrong)}.",
            remedy=remedy,
            where=place_of(path),
        ) from error


def place_of(path: Path) -> str:
    """Name a file so that it reads as no field of a request.

    Args:
        path: The file.

    Returns:
        Its path with the folder, also where that is the current one.
    """
    return f"{path.parent}/{path.name}"
