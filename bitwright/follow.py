"""Following a job: by its event stream where that works, by asking again and again where it does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from bitwright.errors import BitwrightError, ResponseError, ServiceUnreachableError, WaitTimeoutError
from bitwright.results import JobInfo
from bitwright.transport import Transport

_POLL_SECONDS = 1.0
_SILENCE_SECONDS = 45.0
"""The service pings open streams every 15 seconds; longer silence means that the connection is dead."""
_PATIENCE_SECONDS = 60.0
"""How long a service may be away, to be started again for example, before waiting for a job gives up."""


class _NoStreamError(BitwrightError):
    """What answered is not an event stream."""


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    Attributes:
        number: Its id.
        kind: `state` or `progress`.
        data: What it carries.
    """

    number: str
    kind: str
    data: dict[str, Any]


def follow(transport: Transport, job_id: str, timeout: float | None = None) -> Iterator[JobInfo]:
    """Tell how a job stands whenever something is new, until it has ended.

    Args:
        transport: The connection to the service.
        job_id: The job.
        timeout: Seconds after which to give up.

    Yields:
        The job, first as it is now, last as it ended.

    Raises:
        WaitTimeoutError: If the time is over; the job goes on.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    last, streams = "", True
    while True:
        info = _patiently(transport, job_id, deadline)
        yield info
        if info.ended:
            return
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"The job is still {info.state} after {timeout:g} seconds.",
                remedy="It goes on; wait again, or cancel it.",
                job_id=job_id,
            )
        started = time.monotonic()
        if streams:
            try:
                for event in _events(transport, job_id, last, deadline):
                    last, info = event.number, _merge(info, event)
                    if not info.ended:  # the end is told by the job itself, with its summary
                        yield info
            except (httpx.TransportError, ServiceUnreachableError):
                pass  # broken, silent, or out of time: look at the job, then go on behind the last event
            except (_NoStreamError, ResponseError):
                streams = False
        rest = _POLL_SECONDS - (time.monotonic() - started)
        if rest > 0:
            time.sleep(rest if deadline is None else max(0.0, min(rest, deadline - time.monotonic())))


def _events(transport: Transport, job_id: str, last: str, deadline: float | None) -> Iterator[Event]:
    silence = _SILENCE_SECONDS if deadline is None else min(_SILENCE_SECONDS, deadline - time.monotonic())
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    timeout = httpx.Timeout(10.0, read=max(0.001, silence))
    with transport.stream(f"/jobs/{job_id}/events", headers=headers, timeout=timeout) as response:
        if response.status_code == httpx.codes.NO_CONTENT:
            return
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise _NoStreamError("not an event stream")
        for event in parse(response.iter_lines()):
            yield event
            if deadline is not None and time.monotonic() >= deadline:
                return


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Read server-sent events.

    Args:
        lines: The stream, line by line.

    Yields:
        The events.
    """
    number, kind, data = "", "message", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(number, kind, json.loads(data))
            kind, data = "message", ""
        elif name == "id":
            number = value
        elif name == "event":
            kind = value
        elif name == "data":
            data = f"{data}\n{value}" if data else value


def _patiently(transport: Transport, job_id: str, deadline: float | None) -> JobInfo:
    until = time.monotonic() + _PATIENCE_SECONDS
    if deadline is not None:
        until = min(until, deadline)
    while True:
        try:
            return JobInfo.model_validate_json(transport.get(f"/jobs/{job_id}").content)
        except ServiceUnreachableError:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_SECONDS)


def _merge(info: JobInfo, event: Event) -> JobInfo:
    data = event.data
    if event.kind == "state":
        fresh: dict[str, Any] = {"state": data["state"], "message": data.get("message", "")}
        if data["state"] == "queued":
            fresh |= {"stage": None, "stage_progress": 0.0, "progress": 0.0}
    elif event.kind == "progress":
        fresh = {
            "stage": data["stage"],
            "stage_progress": data["fraction"],
            "progress": data["progress"],
            "message": data["message"],
        }
    else:
        return info
    return info.model_copy(update=fresh)
