"""Routes to what a job made: the model, the report, the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi import Path as ApiPath
from fastapi.responses import FileResponse, RedirectResponse, Response

from app.api.accept import preferred
from app.api.deps import JobDep, ServiceDep
from app.api.problems import ProblemError, responses
from app.api.sending import Conditions, ConditionsDep, answers, send_file
from app.job import Job
from app.service import Service

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

_REPORT_TYPES = ("application/json", "text/html")
FileName = Literal[
    "model.onnx.data",
    "sensitivity.json",
    "interactions.npz",
    "spectrum.json",
    "spectrum.html",
    "pareto.json",
    "costs.json",
]
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_MOVED = "The file is in a bucket; Location is good for some minutes, takes Range, and needs no key."
Redirect = Annotated[
    bool,
    Query(
        description="Whether the answer may be the file's address in a bucket; if not, the service sends it."
    ),
]
_FILE_TYPES = {
    ".onnx": "application/octet-stream",
    ".data": "application/octet-stream",
    ".json": "application/json",
    ".html": "text/html",
    ".npz": "application/octet-stream",
}


@router.get(
    "/model",
    summary="Download the quantized model",
    response_class=FileResponse,
    responses={
        **answers(_BINARY, "The quantized ONNX file."),
        307: {"description": _MOVED},
    },
)
def get_model(
    job: JobDep,
    service: ServiceDep,
    conditions: ConditionsDep,
    *,
    redirect: Redirect = True,
) -> Response:
    """Send the quantized ONNX file, or the address of it in a bucket that clients reach."""
    name = f"{Path(job.model).stem}.quantized.onnx"
    kind = _FILE_TYPES[".onnx"]
    return _send(service, job, "model.onnx", conditions, media_type=kind, redirect=redirect, filename=name)


@router.get(
    "/report",
    summary="Read the report",
    response_class=FileResponse,
    responses={
        **answers(
            {
                "application/json": {"schema": {"$ref": "#/components/schemas/Report"}},
                "text/html": {"schema": {"type": "string"}},
            },
            "JSON (schema Report), or one self-contained HTML page if Accept prefers text/html.",
        ),
        **responses(406),
    },
)
def get_report(
    job: JobDep,
    service: ServiceDep,
    conditions: ConditionsDep,
    accept: Annotated[str, Header(description="`application/json`, or `text/html` for the page.")] = "*/*",
) -> Response:
    """Send what was asked, found, chosen and measured."""
    kind = preferred(accept, _REPORT_TYPES)
    if kind is None:
        raise ProblemError(
            406,
            "not_acceptable",
            f"The report comes as {' or '.join(_REPORT_TYPES)}.",
            remedy="Name one of them in Accept.",
            where="Accept",
        )
    name = "report.html" if kind == "text/html" else "report.json"
    return _send(service, job, name, conditions, media_type=kind, headers={"Vary": "Accept"})


@router.get(
    "/files/{name}",
    summary="Read a table",
    response_class=FileResponse,
    responses={
        **answers(
            {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
                **_BINARY,
            }
        ),
        307: {"description": _MOVED},
        **responses(422),
    },
)
def get_file(
    job: JobDep,
    service: ServiceDep,
    conditions: ConditionsDep,
    name: Annotated[FileName, ApiPath(description="The file, as far as the job made it.")],
    *,
    redirect: Redirect = True,
) -> Response:
    """Send the sensitivity table, the Pareto front, or what every layer costs at every bit-width."""
    kind = _FILE_TYPES[Path(name).suffix]
    redirect = redirect and kind == "application/octet-stream"
    return _send(service, job, name, conditions, media_type=kind, redirect=redirect)


def _send(
    service: Service,
    job: Job,
    name: str,
    conditions: Conditions,
    *,
    media_type: str,
    redirect: bool = False,
    filename: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    _require_result(job, name)
    key = service.store.artifact(job.id, name)
    digest = None if key is None else service.storage.digest(key)
    if digest is None:
        raise _no_such_file(job, name)
    address = service.storage.link(digest) if redirect else None
    if address is not None:
        return RedirectResponse(address, status_code=307)

    def path() -> Path:
        found = service.storage.copy(digest)
        if found is None:
            raise _no_such_file(job, name)
        return found

    return send_file(path, digest, conditions, media_type=media_type, filename=filename, headers=headers)


def find_artifact(service: Service, job: Job, name: str) -> Path:
    """Find one of a job's files.

    Args:
        service: The service.
        job: The job.
        name: The file's name.

    Returns:
        Its path.

    Raises:
        ProblemError: If the job has no result, or the file is gone.
    """
    _require_result(job, name)
    path = find_output(service, job, name)
    if path is None:
        missing = _no_such_file(job, name)
        raise missing
    return path


def find_output(service: Service, job: Job, name: str) -> Path | None:
    """Find a file of the result that the job ended with, whatever attempts that were cut off have left.

    Args:
        service: The service.
        job: The job.
        name: The file's name.

    Returns:
        Its path, or None if there is no such file.
    """
    key = service.store.artifact(job.id, name)
    return None if key is None else service.storage.find(key)


def _require_result(job: Job, name: str) -> None:
    if job.state == "succeeded":
        return
    ended = job.ended
    raise ProblemError(
        409,
        "no_result" if ended else "not_finished",
        f"The job {'ended' if ended else 'is'} {job.state}{' and' if ended else ':'} it has no {name}"
        + ("." if ended else " yet."),
        remedy="See the job's error." if ended else "Wait until the job has succeeded.",
        where=job.id,
    )


def _no_such_file(job: Job, name: str) -> ProblemError:
    return ProblemError(
        404,
        "no_such_file",
        f"The job has no {name}.",
        remedy="It was not asked for, or is gone from the data folder; run the job again.",
        where=job.id,
    )
