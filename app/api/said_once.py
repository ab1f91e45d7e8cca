"""JSON whose fields are there once each: parsers keep the last of several, and what the others asked for is lost."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

from fastapi import Depends, Request

from app.api.problems import ProblemError


def refuse_repeated(text: bytes, *, code: str, where: str) -> None:
    """Refuse JSON in which a field of an object is there twice.

    Args:
        text: The JSON.
        code: Code of the error.
        where: What it is a part of.

    Raises:
        ProblemError: If there is such a field.
    """

    def once(pairs: list[tuple[str, object]]) -> None:
        times = Counter(name for name, _ in pairs)
        repeated = next((name for name, count in times.items() if count > 1), None)
        if repeated is not None:
            raise ProblemError(
                422,
                code,
                f"The field {repeated[:200]!r} is there twice, and only one can hold.",
                remedy="Leave one of them out.",
                where=where,
            )

    json.loads(text, object_pairs_hook=once)


async def _once(request: Request) -> None:
    with suppress(ValueError, RecursionError):  # what is no JSON is refused with the body itself
        refuse_repeated(await request.body(), code="request", where="body")


SaidOnce = Depends(_once)
"""For routes with a JSON body."""
