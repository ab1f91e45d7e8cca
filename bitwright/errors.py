"""Every error of the client.

BitwrightError
├── ServiceUnreachableError    no answer came
├── ResponseError              the service answered with an error; has the status
│   ├── InvalidRequestError    400, 413, 415, 422: the model, the samples or the request must change
│   ├── AuthenticationError    401: no API key, or one that is not known
│   ├── ForbiddenError         403: the key does not allow this
│   ├── NotFoundError          404
│   ├── ConflictError          409: not in this state of the job
│   ├── ServiceBusyError       503, and 502 and 504 of a gateway: later
│   │   └── RateLimitedError   429: too many requests, or a quota is used up
│   └── ServerError            other 5xx: a fault of the service
├── JobFailedError             the job ended without a result
├── JobCanceledError           someone canceled the job
└── WaitTimeoutError           the job goes on, but the caller did not want to wait longer
"""

from __future__ import annotations


class BitwrightError(Exception):
    """Base of every error of the client.

    Attributes:
        message: What is wrong.
        remedy: What to do next.
        where: The file, layer, field or job concerned, if one can be named.
        code: Stable name of the kind of error.
        request_id: Name of the request in the service's log, if there was one.
        job_id: The job, if it is about one.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        where: str | None = None,
        code: str = "client",
        request_id: str | None = None,
        job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.where = where
        self.code = code
        self.request_id = request_id
        self.job_id = job_id

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{place}{self.message} {self.remedy}".rstrip() + request


class ServiceUnreachableError(BitwrightError):
    """No answer came, however often it was tried."""


class ResponseError(BitwrightError):
    """The service answered with an error; `status` is the HTTP status, if the service was asked at all."""

    status: int | None = None


class InvalidRequestError(ResponseError):
    """The model, the samples or the request must change before it can be done."""


class AuthenticationError(ResponseError):
    """The service asks for an API key, and none was sent or it is not known there."""


class ForbiddenError(ResponseError):
    """The API key does not allow this."""


class NotFoundError(ResponseError):
    """There is no such job or file."""


class ConflictError(ResponseError):
    """The job is not in a state in which this can be done."""


class ServiceBusyError(ResponseError):
    """The service cannot do this now; later it can. `retry_after` is the pause in seconds it asks for."""

    retry_after: float = 0.0


class RateLimitedError(ServiceBusyError):
    """Too many requests, or more than the key's quota."""


class ServerError(ResponseError):
    """The service failed."""


class JobFailedError(BitwrightError):
    """The job ended without a result; `code`, `where` and `remedy` say why and what to do.

    Attributes:
        retryable: Whether sending the same again can help.
    """

    retryable: bool = False


class JobCanceledError(BitwrightError):
    """The job was canceled."""


class WaitTimeoutError(BitwrightError):
    """The time to wait is over; the job goes on."""
