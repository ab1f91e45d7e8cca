"""`POST /quantize`: take a model and samples, check them, queue a job that quantizes."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api.deps import ServiceDep
from app.api.form.submission import ANSWERS, form, submit
from app.api.form.wishes import WishesDep
from app.api.problems import responses
from app.api.schemas import JobView
from quant_core.spec import QuantizeSpec

router = APIRouter(tags=["jobs"])


@router.post(
    "/quantize",
    status_code=202,
    summary="Quantize a model",
    description="Checks the model and the samples and queues a job; what is wrong with them is told at once. The body "
    "is written to disk as it arrives, the engine's own checks run in a separate process, and a request that is "
    "refused leaves nothing behind. `from_job` takes the files and sensitivities of an ended job instead.",
    response_description="The queued job.",
    responses=ANSWERS | responses(404, 409),
    openapi_extra=form(
        "QuantizeSpec", {"size": 0.18, "bits": [2, 4, 8], "pin": {"fc": 8}, "seed": 0}, from_job=True
    ),
)
async def quantize(request: Request, response: Response, service: ServiceDep, wishes: WishesDep) -> JobView:
    """Check a model and samples and queue a job."""
    return await submit(request, response, service, QuantizeSpec, wishes)
