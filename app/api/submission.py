"""A model and samples as a form: received, checked, and queued as a job."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from pydantic import JsonValue

from app.api.earlier import take_over
from app.api.problems import ProblemError, responses
from app.api.resumable import owner_of
from app.api.schemas import JobView
from app.api.storing import storing
from app.api.uploads import Upload, check_device, receive_upload
from app.executors.checker import CheckerDownError
from app.jobs.job import Job
from app.jobs.store import Submission
from app.service import Service
from quant_core.spec import JobSpec, QuantizeSpec

ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}},
    **responses(400, 404, 413, 415, 422, 500, 503, 507),
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
                            "description": f"What is asked, as JSON of the schema {schema}; every field has a default.",
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


async def submit(request: Request, response: Response, service: Service, asked: type[JobSpec]) -> JobView:
    """Check a model and samples and queue a job.

    Args:
        request: The request.
        response: Is given the job's address.
        service: The service.
        asked: What the form's `spec` holds.

    Returns:
        The queued job.
    """
    with storing():
        upload = await receive_upload(
            request,
            service.staging,
            service.settings.upload_limit,
            asked,
            partial(_take_upload, service, owner_of(request)),
            partial(take_over, service) if asked is QuantizeSpec else None,
        )
        try:
            job = await _queue(service, upload)
        finally:
            await asyncio.to_thread(shutil.rmtree, upload.folder, ignore_errors=True)
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobView.of(job)


async def _queue(service: Service, upload: Upload) -> Job:
    check_device(upload.spec, service.devices)
    try:
        wrong = await service.checker.check(upload.model, upload.data, upload.spec)
    except CheckerDownError as error:
        raise ProblemError(
            503,
            "busy",
            "The processes that check uploads do not stay up.",
            remedy="Send it again later; look in the service's log if this lasts.",
        ) from error
    if wrong is not None:
        status = 500 if wrong.code == "internal" else 422
        raise ProblemError(status, wrong.code, wrong.message, remedy=wrong.remedy, where=wrong.where)
    return await asyncio.to_thread(_accept, service, upload)


def _accept(service: Service, upload: Upload) -> Job:
    job_id = uuid.uuid4().hex
    service.storage.publish(upload.folder / "input", f"{job_id}/input", upload.digests)
    job = service.store.create(
        Submission(job_id, model=upload.model.name, data=upload.data.name, spec=upload.spec)
    )
    service.supervisor.wake()
    return job


def _take_upload(service: Service, owner: str, upload_id: str, file: Path) -> str | None:
    found = service.uploads.take(owner, upload_id, file)
    return None if found is None else found.sha256
