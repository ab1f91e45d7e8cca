"""Following a job: by its event stream where that works, by asking again and again where it does not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from bitwright.errors import (
    BitwrightError,
    JobCanceledError,
    JobFailedError,
    ResponseError,
    ServiceBusyError,
    ServiceUnreachableError,
    WaitTimeoutError,
)
from bitwright.operations.answers import BUSY, check, refuse
from bitwright.operations.jobs import address
from bitwright.requests import read_answer
from bitwright.results import JobInfo
from bitwright.steps import Close, Line, Open, Operation, Pause, Send

POLL_SECONDS = 1.0
_SILENCE_SECONDS = 45.0
"""The service pings open streams every 15 seconds; longer silence means that the connection is dead."""
PATIENCE_SECONDS = 60.0
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


class Reader:
    """Puts server-sent events together from lines."""

    def __init__(self) -> None:
        self._number, self._kind, self._data = "", "message", ""

    def feed(self, line: str) -> Event | None:
        """Take in one line.

        Args:
            line: The line, without its end.

        Returns:
            The event that it completes, if it completes one.
        """
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        done = None
        if not line:
            if self._data:
                done = Event(self._number, self._kind, json.loads(self._data))
            self._kind, self._data = "message", ""
        elif name == "id":
            self._number = value
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data = f"{self._data}\n{value}" if self._data else value
        return done


def wait(
    job_id: str, timeout: float | None = None, on_progress: Callable[[JobInfo], None] | None = None
) -> Operation[JobInfo]:
    """Tell how a job stands whenever something is new, until it has ended.

    Args:
        job_id: The job.
        timeout: Seconds after which to give up.
        on_progress: Told of the job, first as it is now, last as it ended.

    Returns:
        The job as it ended.

    Raises:
        WaitTimeoutError: If the time is over; the job goes on.
    """
    tell = on_progress or (lambda _: None)
    deadline = None if timeout is None else time.monotonic() + timeout
    last, streams = "", True
    while True:
        info = yield from _patiently(job_id, deadline)
        tell(info)
        if info.ended:
            return info
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"The job is still {info.state} after {timeout:g} seconds.",
                remedy="It goes on; wait again, or cancel it.",
                code="timeout",
                job_id=job_id,
            )
        started = time.monotonic()
        if streams:
            try:
                yield from _open(job_id, last, deadline)
                reader = Reader()
                while (line := (yield Line())) is not None:
                    event = reader.feed(line)
                    if event is not None:
                        last, info = event.number, _merge(info, event)
                        if not info.ended:  # the end is told by the job itself, with its summary
                            tell(info)
                    if deadline is not None and time.monotonic() >= deadline:
                        break
                yield Close()
            except (httpx.TransportError, ServiceUnreachableError, ServiceBusyError):
                pass  # broken, silent, or out of time: look at the job, then go on behind the last event
            except (_NoStreamError, ResponseError):
                streams = False
        rest = POLL_SECONDS - (time.monotonic() - started)
        if deadline is not None:
            rest = min(rest, deadline - time.monotonic())
        if rest > 0:
            yield Pause(rest)


def succeeded(info: JobInfo) -> JobInfo:
    """Raise if a job ended without a result.

    Args:
        info: The job as it ended.

    Returns:
        The same.

    Raises:
        JobFailedError: If it failed.
        JobCanceledError: If it was canceled.
    """
    error = info.error
    if error is not None:
        failed = JobFailedError(
            error.message, remedy=error.remedy, where=error.where, code=error.code, job_id=info.id
        )
        failed.retryable = error.retryable
        raise failed
    if info.state == "canceled":
        raise JobCanceledError(
            "The job was canceled.", remedy="Send it again.", code="canceled", job_id=info.id
        )
    return info


def _open(job_id: str, last: str, deadline: float | None) -> Operation[None]:
    silence = _SILENCE_SECONDS if deadline is None else min(_SILENCE_SECONDS, deadline - time.monotonic())
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    request = Send("GET", address(job_id, "/events"), headers=headers, timeout=(10.0, max(0.001, silence)))
    response: httpx.Response = yield Open(request)
    if response.status_code == httpx.codes.NO_CONTENT:
        return
    if response.status_code in BUSY:
        yield Close()
        raise ServiceBusyError("no event stream for now")
    if response.is_error or not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        yield Close()
        raise _NoStreamError("not an event stream")


def _patiently(job_id: str, deadline: float | None) -> Operation[JobInfo]:
    until = time.monotonic() + PATIENCE_SECONDS
    if deadline is not None:
        until = min(until, deadline)
    while True:
        pause = POLL_SECONDS
        try:
            response: httpx.Response = yield Send("GET", address(job_id))
            check(response)
            return read_answer(JobInfo, response.content)
        except httpx.TransportError as error:
            if time.monotonic() >= until:
                refuse(error)
        except ServiceBusyError as error:
            if time.monotonic() >= until:
                raise
            pause = max(pause, error.retry_after)
        yield Pause(max(0.0, min(pause, until - time.monotonic())))


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
