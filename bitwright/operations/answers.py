"""Requests that are sent again where that is safe, and error answers as exceptions."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

from bitwright.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServiceBusyError,
    ServiceUnreachableError,
)
from bitwright.file_digest import file_digest
from bitwright.steps import Operation, Pause, Save, Saved, Send, Work

_BY_STATUS: dict[int, type[ResponseError]] = {
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitedError,
    502: ServiceBusyError,  # a gateway whose service is being started again, say
    503: ServiceBusyError,
    504: ServiceBusyError,
}
BUSY = frozenset(status for status, kind in _BY_STATUS.items() if issubclass(kind, ServiceBusyError))
"""Answers that mean: later."""
_GATEWAY = dict.fromkeys(
    (502, 504),
    "A gateway in between did not reach the service, or not in time; see that it runs, and try again.",
)
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0
LONGEST_WISH = 60.0
"""Seconds; limits are counted by the minute. Who is asked to stay away for longer should not find a program asleep."""


def ask(request: Send, retries: int) -> Operation[httpx.Response]:
    """Send a request until it is answered.

    Connection errors and busy answers are met with growing pauses and another try: always where sending twice does no
    more than sending once, else only where the service cannot have heard the request. Who is told to come back in more
    than a minute has the answer at once, as an exception.

    Args:
        request: What to send.
        retries: How often to try again.

    Returns:
        The answer.
    """
    return (yield from _repeat(request, request, retries))


def save(request: Send, file: Path, retries: int) -> Operation[httpx.Response]:
    """Fetch something large into a file; where the connection breaks it goes on, if the content is still the same.

    Args:
        request: What to send.
        file: The file to make.
        retries: How often to try again without getting any further.

    Returns:
        The answer, without its body.

    Raises:
        ServerError: If what came is not what the service says it sent.
    """
    for last in (False, True):
        saved = Saved()
        response = yield from _repeat(Save(request, file, saved), request, retries)
        expected = saved.digest
        if not expected or (yield Work(lambda: file_digest(file))) == expected:
            return response
        if last:
            break
    raise ServerError(
        "What was received is not what the service has.",
        remedy="Try again; something between here and there changes what is sent.",
        where=file.name,
        code="digest",
        job_id=_job_id(response),
    )


def _repeat(step: Send | Save, request: Send, retries: int) -> Operation[httpx.Response]:
    attempt, furthest = 0, 0
    while True:
        if isinstance(step, Save) and step.saved.bytes > furthest:
            attempt, furthest = 0, step.saved.bytes
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
        last = attempt == retries
        try:
            response: httpx.Response = yield step
            check(response)
        except httpx.TransportError as error:
            unheard = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if last or not (request.safe or unheard):
                refuse(error)
        except ServiceBusyError as error:
            if last or not request.safe or error.retry_after > LONGEST_WISH:
                raise
            pause = max(pause, error.retry_after)
        else:
            return response
        attempt += 1
        yield Pause(pause)


def check(response: httpx.Response) -> None:
    """Raise the exception that an error answer stands for.

    Args:
        response: An answer whose body was read.

    Raises:
        ResponseError: If it is an error.
    """
    if not response.is_error:
        return
    status = response.status_code
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequestError)
    problem = _problem(response)
    seconds, later = _wish(response.headers.get("Retry-After", ""))
    error = kind(
        str(problem.get("message") or f"The service answered {status} {response.reason_phrase}."),
        remedy=str(problem.get("remedy") or _GATEWAY.get(status, later)),
        where=problem.get("where"),
        code=str(problem.get("code") or status),
        request_id=problem.get("request_id") or response.headers.get("X-Request-ID"),
        job_id=_job_id(response),
    )
    error.status = status
    if isinstance(error, ServiceBusyError):
        error.retry_after = seconds
    raise error


def refuse(error: httpx.TransportError) -> NoReturn:
    """Say that no answer came.

    Args:
        error: What happened instead.

    Raises:
        ServiceUnreachableError: Always.
    """
    try:
        url: object = error.request.url.copy_with(path="/", query=None)
    except RuntimeError:
        url = "the service"
    raise ServiceUnreachableError(
        f"No answer from {url}: {str(error) or type(error).__name__}.",
        remedy="Start a service with `bitwright serve`, or give its address: "
        'Client("http://host:port"), --url or BITWRIGHT_URL.',
        code="unreachable",
    ) from error


def _wish(after: str) -> tuple[float, str]:
    """For how many seconds to stay away, and how to say so; RFC 9110 has it as a number or as a date."""
    if after.isdecimal():
        return float(after), f"Try again in {after} seconds."
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time()), f"Try again after {after}."
    except (ValueError, OverflowError):
        return 0.0, ""


def _job_id(response: httpx.Response) -> str | None:
    words = response.request.url.path.split("/")
    return words[words.index("jobs") + 1] if "jobs" in words[:-1] else None


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:  # a gateway in between answers in its own words
        return {}
    return body if isinstance(body, dict) else {}
