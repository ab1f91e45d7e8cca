"""The application and the server around it."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.api import analyze, artifacts, events, health, inspect, jobs, plans, problems, quantize
from app.api.answers import AnswersMiddleware
from app.api.deps import KnownQuery
from app.api.description import docs, openapi
from app.api.guard import GuardMiddleware, is_loopback
from app.api.head import HeadMiddleware
from app.api.request_id import RequestIdMiddleware
from app.api.uploads import direct, listing, resumable
from app.environment import forget_secrets
from app.log import configure
from app.service import Service
from app.settings import Settings
from app.tracing import TracingMiddleware
from app.web import page
from quant_core.errors import UserError
from quant_core.processors.granted import limit_threads

_log = logging.getLogger("bitwright")

_STOP_SECONDS = 5
_IDLE_SECONDS = 75
"""How long a connection stays open without a request: longer than clients and proxies (nginx: 60 s) keep theirs, or
one of them sends a request just as it is closed."""

_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""What anybody may read; they tell nothing of anybody."""


class AddressError(UserError):
    """The service cannot listen at the address it was given."""

    code = "address"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; its service starts and stops with it.

    Args:
        settings: What it is told from outside; by default the environment.

    Returns:
        The application.
    """
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    app = FastAPI(
        title="Bitwright",
        version=version("bitwright"),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    told, local = service.settings, is_loopback(service.settings.host)
    guarded = told.keys == "on" or (told.keys == "auto" and not local)
    app.state.guarded = guarded
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        GuardMiddleware,
        keys=lambda: service.keys,
        required=guarded,
        local_only=local,
        open_paths=_OPEN | page.page_paths(),
    )
    app.add_middleware(AnswersMiddleware, metrics=service.metrics)
    app.add_middleware(RequestIdMiddleware)
    if service.tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=service.tracing)
    problems.install(app)
    for part in (
        quantize,
        analyze,
        inspect,
        resumable,
        listing,
        direct,
        jobs,
        events,
        artifacts,
        plans,
        health,
    ):
        app.include_router(part.router, dependencies=[KnownQuery])
    openapi.install(app)
    docs.install(app)
    page.install(app)
    return app


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Put the settings together.

    Args:
        options: What comes before the environment.

    Returns:
        The settings.
    """
    return Settings(**options)


def serve(settings: Settings) -> None:
    """Run the service until it is told to stop.

    Args:
        settings: What it is told from outside.

    Raises:
        AddressError: If it cannot listen there.
        DataFolderError: If the data folder cannot be used.
    """
    configure(settings.log_level, settings.log_format)
    limit_threads()  # of the worker processes, which inherit it
    with _listen(settings.host, settings.port) as listener:
        app = create_app(settings)
        service: Service = app.state.service
        service.open()  # before the server starts, so that an error reaches the user as it is
        forget_secrets()
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level=settings.log_level,
            access_log=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            server_header=False,
        )
        port = listener.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        _log.info("listening on http://%s:%d, data in %s", host, port, settings.data_dir.absolute())
        _Server(config, service).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise AddressError(
            f"cannot listen here: {error.strerror}.",
            remedy="Name another address with --host and --port; --port 0 takes a free one.",
            where=f"{host}:{port}",
        ) from error


class _Server(uvicorn.Server):
    """Ends open event streams as soon as it is told to stop; they would hold it up until the time limit."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping.set()
        super().handle_exit(sig, frame)
