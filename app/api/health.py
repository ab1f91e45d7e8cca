"""Routes about the service itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, JsonValue
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.api.deps import ServiceDep
from app.api.problems import ProblemError, responses
from quant_core.spec import DeviceHealth, Health

router = APIRouter(tags=["service"])

_EXAMPLE: dict[str, JsonValue] = {
    "status": "degraded",
    "message": "The Ray cluster cannot be reached; jobs are taken and wait for it.",
}


@router.get("/healthz", summary="How the service is")
def health(request: Request, service: ServiceDep) -> Health:
    """Tell that the service answers, how many jobs wait, and what its devices do."""
    running = service.supervisor.running
    guarded: bool = request.app.state.guarded  # anybody may ask, and jobs are their owners' alone
    try:
        queued = service.store.counts().get("queued", 0)
    except OperationalError:
        queued = None
    return Health(
        status="ok" if service.fault is None else "degraded",
        version=version("bitwright"),
        queued=queued,
        devices=tuple(
            DeviceHealth(name=name, busy=name in running, job=None if guarded else running.get(name))
            for name in service.devices
        ),
    )


class Degraded(BaseModel):
    """What does not work although jobs are taken.

    Attributes:
        status: `degraded`.
        message: What they wait for.
    """

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    status: Literal["degraded"] = "degraded"
    message: str


@router.get(
    "/readyz",
    status_code=204,
    summary="Whether it takes jobs",
    responses={
        200: {"model": Degraded, "description": "It takes jobs, but they wait, as while a cluster is away"},
        **responses(503),
    },
)
def ready(service: ServiceDep) -> Response:
    """Tell that the database answers, jobs are given out and leases are kept; if not, balancers go elsewhere."""
    try:
        service.store.counts()
        fault = None
    except SQLAlchemyError:
        fault = "The database does not answer."
    if service.stopping.is_set():
        fault = "The service is stopping."
    elif not service.supervisor.alive or service.heartbeat.silent:
        fault = "Jobs are not given out."
    if fault is not None:
        raise ProblemError(
            503, "not_ready", fault, remedy="Ask again later; look in the service's log if it lasts."
        )
    if (waiting := service.fault) is not None:
        return JSONResponse(Degraded(message=waiting).model_dump())
    return Response(status_code=204)


@router.get(
    "/metrics",
    summary="What is counted",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses(401, 403)},
)
def metrics(service: ServiceDep) -> Response:
    """Count jobs, stages, lost leases, bytes and requests, for Prometheus."""
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
