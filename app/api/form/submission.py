"""A model and samples as a form: received, checked, and queued as a job."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from pydantic import JsonValue

from app.api.deps import owner_name_of, owner_of
from app.api.earlier import take_over
from app.api.form.parts import Upload, check_device, receive_upload
from app.api.form.wishes import Wishes, fingerprint
from app.api.guard import key_of
from app.api.problems import ProblemError, responses
from app.api.request_id import request_id
from app.api.schemas import JobView
from app.api.storing import storing
from app.executors.checker import CheckerDownError
from app.job import Job
from app.jobs.store import Submission, TooManyJobsError
from app.service import Service
from quant_core.errors import InfeasibleBudgetError, SamplesError, SpecError
from quant_core.spec import JobFailure, JobSpec, QuantizeSpec

_log = logging.getLogger("bitwright.jobs")

_OF_THE_SPEC = frozenset({SpecError.code, InfeasibleBudgetError.code, SamplesError.code})
"""Codes of errors that may name a field of the request."""

ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}},
    **responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507),
}
"""What a request that sends a job can be answered with."""


def form(schema: str, example: dict[str, JsonValue], *, from_job: bool = False) -> dict[str, Any]:
    """Describe the form that a job is sent in.

    Args:
        schema: Name of the schema of its `spec`.
        example: A short spec.
        from_job: Whether an ended job may stand in for the files.

    Returns:
        What OpenAPI is told of the request.
    """
    body: dict[str, Any] = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["model", "data"],
                    "properties": {
                        "model": {
                            "type": "string",
                            "format": "binary",
                            "description": "The ONNX model. Without a file name, here and in data and files, the id of "
                            "an upload, with NAME= before it where the file is to have another name.",
                        },
                        "data": {
                            "type": "string",
                            "format": "binary",
                            "description": "Samples: .npz with one array per graph input (first axis = samples) and "
                            "optional `labels`, or .npy for a model with one input.",
                        },
                        "spec": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": f"#/components/schemas/{schema}-Input"},
                            "description": f"What is asked, as JSON of the schema {schema}-Input; every field has a "
                            "default.",
                            "example": json.dumps(example),
                        },
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "External data of the model, each under the file name that the model uses.",
                        },
                    },
                },
                "encoding": {"spec": {"contentType": "application/json"}},
            }
        },
    }
    if from_job:
        described = body["content"]["multipart/form-data"]["schema"]
        described["properties"]["from_job"] = {
            "type": "string",
            "description": "Id of a job that succeeded, instead of model and data: its files and its sensitivities are "
            "taken over, and no probe is run.",
        }
        described["oneOf"] = [{"required": described.pop("required")}, {"required": ["from_job"]}]
    return {"requestBody": body}


async def submit(
    request: Request, response: Response, service: Service, asked: type[JobSpec], wishes: Wishes
) -> JobView:
    """Check a model and samples and queue a job.

    Args:
        request: The request.
        response: Is given the job's address.
        service: The service.
        asked: What the form's `spec` holds.
        wishes: What is said with the job.

    Returns:
        The queued job.
    """
    owner, key = owner_of(request), key_of(request)
    with storing():
        upload = await receive_upload(
            request,
            service.staging,
            service.settings.upload_limit,
            asked,
            partial(take_upload, service, owner),
            partial(take_over, service, owner) if asked is QuantizeSpec else None,
        )
        try:
            marked = await asyncio.to_thread(fingerprint, upload, wishes) if wishes.idempotency_key else None
            job = await asyncio.to_thread(_repeated, service, owner, wishes, marked)
            if job is None:
                if key is not None:  # before the checks, which take longer
                    with _limited(key.active_jobs):
                        await asyncio.to_thread(service.store.check_room, owner, key.active_jobs)
                await _check(service, upload)
                submission = Submission(
                    uuid.uuid4().hex,
                    model=upload.model.name,
                    data=upload.data.name,
                    spec=upload.spec,
                    owner=owner,
                    tags=wishes.tags,
                    idempotency_key=wishes.idempotency_key,
                    fingerprint=marked,
                    webhook=wishes.webhook,
                    trace=None if service.tracing is None else service.tracing.here(),
                    active_limit=None if key is None else key.active_jobs,
                )
                job = await asyncio.to_thread(_accept, service, upload, submission)
                _log.info(
                    "job %s waits",
                    job.id,
                    extra={"job": job.id, "request_id": request_id(request), "key": key.id if key else None},
                )
        finally:
            await asyncio.to_thread(shutil.rmtree, upload.folder, ignore_errors=True)
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobView.of(job, owner_name_of(request))


@contextmanager
def checking() -> Iterator[None]:
    """Answer 503 where the processes that check uploads do not stay up."""
    try:
        yield
    except CheckerDownError as error:
        raise ProblemError(
            503,
            "busy",
            "The processes that check uploads do not stay up.",
            remedy="Send it again later; look in the service's log if this lasts.",
        ) from error


def refusal(wrong: JobFailure, spec: JobSpec | None = None) -> ProblemError:
    """Turn what a check found into an answer.

    Args:
        wrong: What is wrong.
        spec: What was asked, if anything; a field of it is named by its path there, as it was written.

    Returns:
        The error to raise.
    """
    status = 500 if wrong.code == "internal" else 422
    field = spec.place_of(wrong.where) if spec is not None and wrong.code in _OF_THE_SPEC else None
    where = wrong.where if field is None else f"spec.{field}"
    return ProblemError(status, wrong.code, wrong.message, remedy=wrong.remedy, where=where)


def _repeated(service: Service, owner: str, wishes: Wishes, marked: str | None) -> Job | None:
    found = service.store.repeated(owner, wishes.idempotency_key) if wishes.idempotency_key else None
    if found is None:
        return None
    job, before = found
    if before != marked:
        raise ProblemError(
            409,
            "idempotency_key",
            "Another request was sent under this idempotency key.",
            remedy="Use a new key for every new request.",
            where="Idempotency-Key",
        )
    return job


async def _check(service: Service, upload: Upload) -> None:
    check_device(upload.spec, service.devices)
    with checking():
        wrong = await service.checker.check(upload.model, upload.data, upload.spec, upload.folder)
    if wrong is not None:
        raise refusal(wrong, upload.spec)


@contextmanager
def _limited(active_limit: int | None) -> Iterator[None]:
    """Answer 429 where the key has as many jobs as it may."""
    try:
        yield
    except TooManyJobsError as error:
        raise ProblemError(
            429,
            "jobs",
            f"This key may have {active_limit} jobs waiting or running.",
            remedy="Wait until some have ended, or cancel them.",
            where="Authorization",
            headers={"Retry-After": "30"},
        ) from error


def _accept(service: Service, upload: Upload, submission: Submission) -> Job:
    service.storage.publish(upload.folder / "input", f"{submission.id}/input", upload.digests)
    try:
        with _limited(submission.active_limit):
            job = service.store.create(submission)
    except ProblemError:
        service.storage.remove(submission.id)
        raise
    if job.id != submission.id:  # the same request came twice at once
        service.storage.remove(submission.id)
    service.supervisor.wake()
    return job


def take_upload(service: Service, owner: str, upload_id: str, file: Path) -> str | None:
    """Copy an upload to a place.

    Args:
        service: The service.
        owner: Who asks.
        upload_id: The upload.
        file: The place.

    Returns:
        Its SHA-256; None if the owner has no such upload.
    """
    found = service.uploads.take(owner, upload_id, file)
    return None if found is None else found.sha256
