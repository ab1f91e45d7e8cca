"""The application and the server around it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.api import artifacts, events, health, jobs, openapi, problems, quantize
from app.api.request_id import RequestIdMiddleware
from app.service import Service
from app.settings import Settings

_STOP_SECONDS = 5


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
        title="Bitwright", version=version("bitwright"), description=openapi.DESCRIPTION, lifespan=lifespan
    )
    app.state.service = service
    app.add_middleware(RequestIdMiddleware)
    problems.install(app)
    for part in (quantize, jobs, events, artifacts, health):
        app.include_router(part.router)
    openapi.install(app)
    return app


def serve(options: Mapping[str, Any]) -> None:
    """Run the service until it is told to stop.

    Args:
        options: Settings that come before those of the environment.
    """
    settings = Settings(**options)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    _Server(config, app.state.service).run()


class _Server(uvicorn.Server):
    """Ends open event streams as soon as it is told to stop; they would hold it up until the time limit."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping.set()
        super().handle_exit(sig, frame)
