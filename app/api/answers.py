"""What every answer carries, and the line in the log that every request leaves."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.guard import key_of
from app.api.request_id import request_id
from app.metrics import Metrics

_log = logging.getLogger("bitwright.access")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = "sandbox allow-scripts allow-downloads"
"""Pages made from users' files name the scripts they allow themselves; they must not act for whoever looks at them."""


class AnswersMiddleware:
    """Sets security headers where a route has not set its own."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Args:
            scope: The connection.
            receive: Where messages come from.
            send: Where messages go.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, received, sent = time.perf_counter(), 500, 0, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                page = headers.get("Content-Type", "").startswith("text/html")
                headers.setdefault("Content-Security-Policy", _PAGE_POLICY if page else _POLICY)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted, send_with_headers)
        finally:
            self._metrics.answered(scope["method"], status, received, sent)
            connection = HTTPConnection(scope)
            key = key_of(connection)
            _log.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                status,
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.perf_counter() - started, 4),
                    "request_id": request_id(connection),
                    "key": key.id if key else None,
                },
            )
