"""Answers HEAD wherever GET is answered: health checks and clients that only want a size send it."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Takes HEAD for GET where a route has no answer of its own to it, and sends the headers alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Args:
            scope: The connection.
            receive: Where messages come from.
            send: Where messages go.
        """
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        unknown = False

        async def send_known(message: Message) -> None:
            nonlocal unknown
            if message["type"] == "http.response.start":
                unknown = message["status"] == 405
            if not unknown:
                await send(message)

        async def send_start(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({"type": "http.response.body"})
                raise _EnoughError
            await send(message)

        await self._app(dict(scope), receive, send_known)
        if unknown:
            with suppress(_EnoughError):
                await self._app({**scope, "method": "GET"}, receive, send_start)


class _EnoughError(Exception):
    """The headers are sent; nobody reads the file or follows the job for a body that is left out."""
