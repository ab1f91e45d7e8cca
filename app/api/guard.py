"""Who may ask for what: keys where they are required, and no other site's pages where they are not."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import Callable
from urllib.parse import urlsplit

from sqlalchemy.exc import OperationalError
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import answer, no_database
from app.keys import Allowances, Key, KnownKeys
from quant_core.spec import JobFailure

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class GuardMiddleware:
    """Turns requests away before any of their body is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Callable[[], KnownKeys],
        required: bool,
        local_only: bool,
        open_paths: frozenset[str],
    ) -> None:
        """Set it up.

        Args:
            app: What follows.
            keys: Gives the keys once the service was opened.
            required: Whether requests need a key.
            local_only: Whether the service listens on loopback, so that other names for it are somebody's trick.
            open_paths: What anybody may read.
        """
        self._app = app
        self._keys = keys
        self._required = required
        self._local_only = local_only
        self._open = open_paths
        self._allowances = Allowances()

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
        request = Request(scope)
        try:
            refused = _refuse_form(request) or (
                await self._refuse_key(request) if self._required else _refuse_site(request, self._local_only)
            )
        except OperationalError as away:
            await no_database(request, away)(scope, receive, send)
            return
        if refused is None:
            await self._app(scope, receive, send)
        else:
            status, error, headers = refused
            await answer(request, status, error, headers)(scope, receive, send)

    async def _refuse_key(self, request: Request) -> tuple[int, JobFailure, dict[str, str]] | None:
        if request.url.path in self._open and request.method in _SAFE:
            return None
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        key = await asyncio.to_thread(self._keys().find, token.strip()) if kind.lower() == "bearer" else None
        if key is None:
            return 401, _UNKNOWN, {"WWW-Authenticate": 'Bearer realm="bitwright"'}
        needed = (
            "metrics" if request.url.path == "/metrics" else "read" if request.method in _SAFE else "write"
        )
        if needed not in key.scopes:
            return 403, _out_of_scope(needed), {}
        pause = self._allowances.take(key)
        if pause > 0:
            return 429, _too_fast(key), {"Retry-After": str(math.ceil(pause))}
        request.scope.setdefault("state", {})["key"] = key
        return None


def key_of(connection: HTTPConnection) -> Key | None:
    """Tell what key a request was sent with.

    Args:
        connection: The request.

    Returns:
        The key; None where none is asked for.
    """
    key: Key | None = connection.scope.get("state", {}).get("key")
    return key


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine to itself.

    Args:
        host: A name or an address.

    Returns:
        True for `localhost` and loopback addresses.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in {"localhost", "localhost.localdomain"}


def _refuse_form(request: Request) -> tuple[int, JobFailure, dict[str, str]] | None:
    """No name of ours has a NUL, and PostgreSQL cannot be asked for one; packed bodies would be kept as they are."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        return 400, _NUL, {}
    packed = request.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
    if packed and request.method in {"POST", "PUT"}:
        return 415, _PACKED, {"Accept-Encoding": "identity"}
    return None


def _refuse_site(request: Request, local_only: bool) -> tuple[int, JobFailure, dict[str, str]] | None:
    """Without keys, pages of other sites in the user's browser must not reach what listens on loopback."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    try:
        named = is_loopback(urlsplit(f"//{host}").hostname or "") or not local_only
        ours = named and (origin is None or urlsplit(origin).netloc == host)
    except ValueError:  # brackets around what is no address
        ours = False
    return None if ours else (403, _FOREIGN, {})


_NUL = JobFailure(
    code="address",
    message="The address has the character NUL, which no name here has.",
    remedy="Leave %00 out of the path and the query.",
)
_PACKED = JobFailure(
    code="encoding",
    message="The body is compressed, and this service takes bodies as they are.",
    remedy="Send it uncompressed, without Content-Encoding.",
    where="Content-Encoding",
)
_UNKNOWN = JobFailure(
    code="key",
    message="This service asks for a key, and there is none here that it knows.",
    remedy="Send `Authorization: Bearer KEY`; keys are made with `bitwright admin keys create`.",
    where="Authorization",
)
_FOREIGN = JobFailure(
    code="origin",
    message="The request comes from another site's page, or by a name that is not this machine's.",
    remedy="Address the service by the name it listens on; to serve other names, require keys.",
    where="Origin",
)


def _out_of_scope(needed: str) -> JobFailure:
    return JobFailure(
        code="scope",
        message=f"This key does not have the scope {needed}.",
        remedy=f"Use a key with the scope {needed}.",
        where="Authorization",
    )


def _too_fast(key: Key) -> JobFailure:
    return JobFailure(
        code="rate",
        message=f"This key may make {key.requests_per_minute} requests a minute.",
        remedy="Wait as long as Retry-After says; follow jobs by their events instead of asking again and again.",
        where="Authorization",
        retryable=True,
    )
