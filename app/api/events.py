"""`GET /jobs/{id}/events`: what happens to a job, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Header, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy.exc import OperationalError

from app.api.deps import JobDep, ServiceDep
from app.api.problems import responses
from app.service import Service
from quant_core.spec import STAGES, JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOOK_SECONDS = 0.2
_PING_SECONDS = 15.0

_EXAMPLE = (
    'event: state\ndata: {"state": "validating", "attempt": 1, "message": "starting"}\nid: 2\n\n'
    'event: progress\ndata: {"stage": "ingest", "fraction": 1.0, "message": "22 layers", "progress": 0.04}\nid: 3\n\n'
)

# OpenAPI says what events a stream is made of from 3.2 on only; 3.1 takes names of our own.
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data", "id"],
    "properties": {
        "event": {"type": "string", "enum": ["state", "progress"]},
        "id": {"type": "string", "description": "Number of the event, from 1."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "type": "object",
                "required": ["message"],
                "properties": {
                    "state": {"type": "string", "enum": list(get_args(JobState))},
                    "attempt": {"type": "integer"},
                    "message": {"type": "string"},
                    "error": {"anyOf": [{"$ref": "#/components/schemas/JobFailure"}, {"type": "null"}]},
                    "stage": {"type": "string", "enum": list(STAGES)},
                    "fraction": {"type": "number", "minimum": 0, "maximum": 1},
                    "progress": {"type": "number", "minimum": 0, "maximum": 1},
                },
                "additionalProperties": False,
            },
        },
    },
}


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        200: {
            "description": "Events from the first, or after Last-Event-ID, until the job ends. `state` events carry "
            "state, message and error; `progress` events carry stage, fraction, message and overall progress.",
            "content": {"text/event-stream": {"x-itemSchema": _EVENT, "example": _EXAMPLE}},
        },
        204: {"description": "The job has ended and nothing comes after Last-Event-ID."},
        **responses(404, 422),
    },
)
async def follow_job(
    job: JobDep,
    service: ServiceDep,
    last_event_id: Annotated[
        int, Header(ge=0, le=2**31, description="Number of the last event already seen.")
    ] = 0,
) -> Response:
    """Stream a job's events; the stream ends when the job has ended."""
    if job.ended and not await asyncio.to_thread(service.store.events, job.id, after=last_event_id, limit=1):
        return Response(status_code=204)
    return EventSourceResponse(
        _stream(service, job.id, last_event_id),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(service: Service, job_id: str, last: int) -> AsyncIterator[bytes]:
    spoke = time.monotonic()
    while not service.stopping.is_set():
        try:
            events, ended = await asyncio.to_thread(service.store.news, job_id, after=last)
        except OperationalError:  # the client comes back behind the last event that it saw
            return
        for event in events:
            last = event.number
            yield format_sse_event(data_str=json.dumps(event.data), event=event.kind, id=str(last))
            spoke = time.monotonic()
        if not events:
            if ended:
                return
            if time.monotonic() - spoke > _PING_SECONDS:
                yield KEEPALIVE_COMMENT
                spoke = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
