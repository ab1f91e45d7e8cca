"""`POST /analyze`: take a model and samples, check them, queue a job that estimates sensitivities."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api.deps import ServiceDep
from app.api.form.submission import ANSWERS, form, submit
from app.api.form.wishes import WishesDep
from app.api.schemas import JobView
from quant_core.spec import AnalyzeSpec

router = APIRouter(tags=["jobs"])


@router.post(
    "/analyze",
    status_code=202,
    summary="Estimate sensitivities",
    description="Takes the same form as `POST /quantize` and queues a job that estimates what each layer loses at each "
    "bit-width; its result is `files/sensitivity.json`, and no model is made.",
    response_description="The queued job.",
    responses=ANSWERS,
    openapi_extra=form("AnalyzeSpec", {"sensitivity": "gauss_newton", "bits": [2, 4, 8], "seed": 0}),
)
async def analyze(request: Request, response: Response, service: ServiceDep, wishes: WishesDep) -> JobView:
    """Check a model and samples and queue an analysis."""
    return await submit(request, response, service, AnalyzeSpec, wishes)
