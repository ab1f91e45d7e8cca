"""JSON of bounded size whose fields are there once each: parsers keep the last of several, and the others are lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from app.api.problems import ProblemError

_MOST = 4 * 2**20
"""Bytes of a body; 10,000 parts of a file, the most that S3 takes, are told in one."""


class _Bounded(Request):
    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > _MOST:
                    raise ProblemError(
                        413,
                        "too_large",
                        f"The body is larger than the {_MOST} bytes that JSON may take here.",
                        remedy="Send a smaller one.",
                        where="body",
                    )
            self._body = bytes(body)
        return self._body


class JsonRoute(APIRoute):
    """A route that reads no more of a JSON body than any request needs."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Bound what the route reads.

        Returns:
            What answers a request.
        """
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            request = _Bounded(request.scope, request.receive)
            await request.body()
            return await handle(request)

        return bounded


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
