"""`POST /inspect`: what a model holds and how small it can become, before any job."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request

from app.api.deps import ServiceDep, owner_of
from app.api.form.files import FILE_FIELDS, FormFiles
from app.api.form.multipart import receive, refuse_announced
from app.api.form.parts import check_data, check_model, take_named
from app.api.form.submission import checking, refusal, take_upload
from app.api.problems import ProblemError, responses
from app.api.storing import storing
from app.service import Service
from quant_core.spec import JobFailure, Preflight

router = APIRouter(tags=["jobs"])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {"type": "string", "format": "binary", "description": "The ONNX model."},
                        "data": {
                            "type": "string",
                            "format": "binary",
                            "description": "Samples, for models whose inputs have open sizes.",
                        },
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "External data of the model, each under the file name that the model uses.",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "/inspect",
    summary="Look at a model",
    description="Takes the files of `POST /quantize`, samples being optional, and tells what the model holds: layers, "
    "what cannot be quantized and why, the smallest reachable size. Nothing is kept.",
    response_description="What the model holds.",
    responses=responses(400, 404, 413, 415, 422, 500, 503, 507),
    openapi_extra=_FORM,
)
async def inspect(request: Request, service: ServiceDep) -> Preflight:
    """Tell what a model holds."""
    refuse_announced(request, service.settings.upload_limit)
    folder = service.staging / uuid.uuid4().hex
    with storing():
        try:
            model, data = await _receive(request, service, folder)
            with checking():
                found = await service.checker.inspect(model, data, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if isinstance(found, JobFailure):
        raise refusal(found)
    return found


async def _receive(request: Request, service: Service, folder: Path) -> tuple[Path, Path | None]:
    files = FormFiles(folder)
    limit = service.settings.upload_limit
    received = await receive(request.stream(), request.headers.get("content-type", ""), files, limit)
    bring = partial(take_upload, service, owner_of(request))
    for name in FILE_FIELDS:
        for text in received.texts.get(name, ()):
            await asyncio.to_thread(take_named, files, name, text, bring)
    if files.model is None:
        raise ProblemError(
            422,
            "missing_part",
            "The form has no part named 'model'.",
            remedy="Send the ONNX file as `model`.",
            where="model",
        )
    check_model(files.model)
    return files.model, None if files.data is None else check_data(files.data, files.data_name)
