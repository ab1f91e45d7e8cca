"""Routes about the service itself."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from app.api.deps import ServiceDep
from quant_core.spec import DeviceHealth, Health

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="How the service is")
def health(service: ServiceDep) -> Health:
    """Tell that the service answers, how many jobs wait, and what its devices do."""
    running = service.supervisor.running
    return Health(
        status="ok",
        version=version("bitwright"),
        queued=service.store.counts().get("queued", 0),
        devices=tuple(DeviceHealth(name=name, job=running.get(name)) for name in service.devices),
    )


@router.get("/", include_in_schema=False)
def root() -> RedirectResponse:
    """Send people to the documentation."""
    return RedirectResponse("/docs")
