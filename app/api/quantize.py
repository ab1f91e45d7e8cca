"""`POST /quantize`: take a model and samples, check them, queue a job."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.deps import ServiceDep
from app.api.problems import ProblemError, responses
from app.api.schemas import JobView
from app.api.uploads import Upload, check_device, receive_upload
from app.executors.checker import CheckerDownError
from app.jobs.job import Job
from app.service import Service

router = APIRouter(tags=["jobs"])

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["model", "data"],
                "properties": {
                    "model": {"type": "string", "format": "binary", "description": "The ONNX model."},
                    "data": {
                        "type": "string",
                        "format": "binary",
                        "description": "Samples: .npz with one array per graph input (first axis = samples) and "
                        "optional `labels`, or .npy for a model with one input.",
                    },
                    "spec": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "description": "What is asked, as JSON of the schema QuantizeSpec; every field has a default.",
                        "example": json.dumps({"size": 0.18, "bits": [2, 4, 8], "pin": {"fc": 8}, "seed": 0}),
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


@router.post(
    "/quantize",
    status_code=202,
    summary="Quantize a model",
    description="Checks the model and the samples and queues a job; what is wrong with them is told at once. The body "
    "is written to disk as it arrives, the engine's own checks run in a separate process, and a request that is "
    "refused leaves nothing behind.",
    response_description="The queued job.",
    responses={
        202: {"headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}},
        **responses(400, 413, 415, 422, 500, 503, 507),
    },
    openapi_extra={"requestBody": _BODY},
)
async def quantize(request: Request, response: Response, service: ServiceDep) -> JobView:
    """Check a model and samples and queue a job."""
    try:
        upload = await receive_upload(request, service.staging, service.settings.upload_limit)
        try:
            job = await _queue(service, upload)
        finally:
            await asyncio.to_thread(shutil.rmtree, upload.folder, ignore_errors=True)
    except OSError as error:
        raise ProblemError(
            507,
            "storage",
            f"The upload cannot be kept: {error.strerror or error}.",
            remedy="Free space in the service's data folder, then send it again.",
        ) from error
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
    service.storage.publish(upload.folder / "input", f"{job_id}/input")
    job = service.store.create(
        job_id, model_name=upload.model.name, data_name=upload.data.name, spec=upload.spec
    )
    service.supervisor.wake()
    return job
