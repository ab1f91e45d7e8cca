"""Every error answer is one document: what is wrong, what to do, where, and under which request id."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.api.request_id import request_id
from quant_core.spec import JobFailure
from quant_core.spec.wrong_field import what_is_wrong

_log = logging.getLogger("bitwright.api")

_DISK_FULL = re.compile(r"disk is full|No space left on device|disk I/O error")
"""How SQLite and PostgreSQL say it; SQLite's journal cannot be made on a full disk either."""

_PASSING = frozenset({429, 503, 507})
"""Statuses of troubles that pass."""


class Problem(BaseModel):
    """An error answer.

    Attributes:
        code: Stable name of the kind of error.
        message: What is wrong.
        remedy: What to do next.
        where: The file, layer, field or job concerned, if one can be named.
        retryable: Whether sending the same again later can help.
        request_id: Name of this request in the service's log.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "code": "spec",
                "message": "7 is not a supported bit-width; choose from 2, 3, 4, 5, 6, 8, float",
                "remedy": "Correct this field of the spec.",
                "where": "spec.weight_bits",
                "retryable": False,
                "request_id": "5f0c1d7e9a2b4c3d8e6f7a8b9c0d1e2f",
            }
        }
    )

    code: str
    message: str
    remedy: str
    where: str | None = None
    retryable: bool = False
    request_id: str


class ProblemError(Exception):
    """Raised anywhere below a route to answer with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        remedy: str,
        where: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.error = JobFailure(
            code=code, message=message, remedy=remedy, where=where, retryable=status in _PASSING
        )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for OpenAPI.

    Args:
        statuses: The status codes a route can answer with.

    Returns:
        What FastAPI's `responses` wants.
    """
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make every error of an application a problem document.

    Args:
        app: The application.
    """

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, error: ProblemError) -> JSONResponse:
        return answer(request, error.status, error.error, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if place == "body" and not _is_json(request):
            return answer(request, 415, _NOT_JSON)
        remedy = "Correct this part of the request; /docs lists what it takes."
        return answer(
            request, 422, JobFailure(code="request", message=_wrong(first), remedy=remedy, where=place)
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's own, of a body that is no text
            return answer(request, 400, _NO_TEXT)
        phrase = HTTPStatus(error.status_code).phrase
        allowed = ", ".join(_methods(request)) if error.status_code == 405 else ""
        problem = JobFailure(
            code=phrase.lower().replace(" ", "_"),
            message=f"{request.method} {request.url.path}: {error.detail}.",
            remedy=(f"This address takes {allowed}. " if allowed else "")
            + "See /docs for what this service answers to.",
        )
        headers = {**(error.headers or {}), **({"Allow": allowed} if allowed else {})}
        return answer(request, error.status_code, problem, headers)

    @app.exception_handler(OperationalError)
    async def _no_database(request: Request, error: OperationalError) -> JSONResponse:
        return no_database(request, error)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request %s failed", request_id(request), exc_info=error)
        problem = JobFailure(
            code="internal",
            message="The service failed on this request.",
            remedy="Please report it with the request id; the service's log has the details.",
        )
        return answer(request, 500, problem)


_NOT_JSON = JobFailure(
    code="not_json",
    message="The body must be application/json.",
    remedy="Send it with the header Content-Type: application/json.",
    where="Content-Type",
)


_NO_TEXT = JobFailure(
    code="not_json",
    message="The body is not JSON in UTF-8.",
    remedy="Send JSON as text in UTF-8.",
    where="body",
)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _wrong(first: Mapping[str, Any]) -> str:
    if first["type"] == "extra_forbidden":
        return f"There is no field {first['loc'][-1]!r}."
    if first["type"] == "json_invalid":
        return f"This is no JSON: {first['ctx']['error']}."
    return f"{what_is_wrong(first)}."


def _methods(request: Request) -> list[str]:
    """What any route of an address takes; the router itself names what its first one does."""
    asked = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "POST", "PUT")}
    routes = request.app.routes
    found = [
        method
        for method, scope in asked.items()
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    ]
    return sorted([*found, "HEAD"] if "GET" in found else found)


def no_database(request: Request, error: OperationalError) -> JSONResponse:
    """Answer a request that the database would be needed for.

    Args:
        request: What is answered.
        error: What the database, or its driver, says.

    Returns:
        503, or 507 where the database's own disk is full.
    """
    _log.error("request %s: the database does not answer: %s", request_id(request), error.orig)
    full = _DISK_FULL.search(str(error.orig)) is not None
    problem = JobFailure(
        code="storage" if full else "database",
        message="The disk of the service's database is full."
        if full
        else "The service's database does not answer.",
        remedy="Have space freed there, then send it again." if full else "Send it again later.",
        retryable=True,
    )
    return answer(request, 507 if full else 503, problem, {"Retry-After": "5"})


def answer(
    request: Request, status: int, error: JobFailure, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make an error answer.

    Args:
        request: What is answered.
        status: The HTTP status.
        error: What is wrong.
        headers: More headers.

    Returns:
        The answer.
    """
    name = request_id(request)
    # The outermost handler answers outside our middleware, so the id is set here as well.
    return JSONResponse(
        Problem(**error.model_dump(), request_id=name).model_dump(),
        status_code=status,
        headers={**(headers or {}), "X-Request-ID": name},
        media_type="application/problem+json",
    )
