"""Requests to the service: retries where they are safe, and errors as exceptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import httpx

from bitwright.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    ServerError,
    ServiceBusyError,
    ServiceUnreachableError,
)

_BY_STATUS: dict[int, type[ResponseError]] = {
    404: NotFoundError,
    409: ConflictError,
    429: ServiceBusyError,
    503: ServiceBusyError,
}
T = TypeVar("T")

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0


class Transport:
    """One connection pool to one service."""

    def __init__(
        self, client: httpx.Client, *, retries: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._retries = retries
        self._sleep = sleep

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for something small; tried again when no answer comes or the service is busy.

        Args:
            path: The address below the service's.
            options: What `httpx.Client.request` takes.

        Returns:
            The answer.

        Raises:
            ServiceUnreachableError: If no answer came.
            ResponseError: If the answer is an error.
        """
        return self._repeat(lambda: self._send("GET", path, **options), safe=True)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask for a change; tried again only when the service cannot have heard it.

        Args:
            method: The HTTP method.
            path: The address below the service's.
            options: What `httpx.Client.request` takes.

        Returns:
            The answer.

        Raises:
            ServiceUnreachableError: If no answer came.
            ResponseError: If the answer is an error.
        """
        return self._repeat(lambda: self._send(method, path, **options), safe=False)

    def fetch(self, path: str, write: Callable[[Iterator[bytes]], None], **options: Any) -> None:
        """Ask for something large and hand it on in pieces; from the start again when the connection breaks.

        Args:
            path: The address below the service's.
            write: Takes the pieces; called once for each try.
            options: What `httpx.Client.stream` takes.

        Raises:
            ServiceUnreachableError: If the connection broke too often.
            ResponseError: If the answer is an error.
        """

        def once() -> None:
            with self.stream(path, **options) as response:
                write(response.iter_bytes(2**20))

        self._repeat(once, safe=True)

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Open an answer without reading its body; tried once.

        Args:
            path: The address below the service's.
            options: What `httpx.Client.stream` takes.

        Yields:
            The open answer.

        Raises:
            ResponseError: If the answer is an error.
        """
        with self._client.stream("GET", path, **options) as response:
            if response.is_error:
                response.read()
                _refuse(response)
            yield response

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._client.request(method, path, **options)
        if response.is_error:
            _refuse(response)
        return response

    def _repeat(self, once: Callable[[], T], *, safe: bool) -> T:
        attempt = 0
        while True:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
            last = attempt == self._retries
            try:
                return once()
            except httpx.TransportError as error:
                unheard = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if last or not (safe or unheard):
                    raise _unreachable(self._client.base_url, error) from error
            except ServiceBusyError as error:
                if last or not safe:
                    raise
                pause = max(pause, error.retry_after)
            attempt += 1
            self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311


def _unreachable(url: httpx.URL, error: Exception) -> ServiceUnreachableError:
    return ServiceUnreachableError(
        f"No answer from {url}: {str(error) or type(error).__name__}.",
        remedy='Start a service with `bitwright serve`, or give its address: Client("http://host:port").',
        code="unreachable",
    )


def _refuse(response: httpx.Response) -> NoReturn:
    status = response.status_code
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequestError)
    problem = _problem(response)
    error = kind(
        str(problem.get("message") or f"The service answered {status} {response.reason_phrase}."),
        remedy=str(problem.get("remedy") or ""),
        where=problem.get("where"),
        code=str(problem.get("code") or status),
        request_id=problem.get("request_id") or response.headers.get("X-Request-ID"),
    )
    error.status = status
    if isinstance(error, ServiceBusyError):
        after = response.headers.get("Retry-After", "")
        error.retry_after = float(after) if after.isdecimal() else 0.0
    raise error


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:  # a gateway in between answers in its own words
        return {}
    return body if isinstance(body, dict) else {}
