"""Routes over the job table: list, look at, cancel, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.deps import JobDep, OwnerDep, OwnerNameDep, ServiceDep
from app.api.problems import ProblemError, responses
from app.api.schemas import JobPage, JobView
from app.jobs.store import Filter
from quant_core.spec import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", summary="List jobs", responses=responses(422))
def list_jobs(
    service: ServiceDep,
    owner: OwnerDep,
    owner_name: OwnerNameDep,
    state: Annotated[
        list[JobState], Query(default_factory=list, description="Only jobs in one of these states.")
    ],
    tag: Annotated[
        list[str], Query(default_factory=list, description="Only jobs that have all of these tags.")
    ],
    text: Annotated[
        str,
        Query(
            max_length=256,
            description="Only jobs with every one of these words in the file names, the tags or the id, in any case.",
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many newer ones to pass over.")] = 0,
) -> JobPage:
    """List jobs, newest first."""
    which = Filter(owner, states=tuple(state), tags=tuple(tag), words=tuple(text.split()))
    jobs, total = service.store.page(which, limit=limit, offset=offset)
    return JobPage(
        jobs=[JobView.of(job, owner_name) for job in jobs], total=total, limit=limit, offset=offset
    )


@router.get("/{job_id}", summary="Look at a job", responses=responses(404))
def get_job(job: JobDep, owner_name: OwnerNameDep) -> JobView:
    """Tell a job's state, stage and progress, and why it failed if it did."""
    return JobView.of(job, owner_name)


@router.delete(
    "/{job_id}",
    summary="Cancel a job, or delete an ended one",
    status_code=200,
    responses={
        200: {"model": JobView, "description": "It was queued and is now canceled."},
        202: {
            "model": JobView,
            "description": "It runs and was asked to stop; its process is killed at once.",
        },
        204: {"description": "It had ended; the job and its files are deleted."},
        **responses(404, 409, 422),
    },
    response_model=None,
)
def delete_job(
    before: JobDep,
    service: ServiceDep,
    owner_name: OwnerNameDep,
    response: Response,
    *,
    cancel_only: Annotated[
        bool, Query(description="Answer 409 instead of deleting when the job has already ended.")
    ] = False,
) -> JobView | Response:
    """Cancel a queued or running job; delete a job that has ended, with its files."""
    job_id = before.id
    if not before.ended:
        job = service.store.cancel(job_id)
        service.supervisor.wake()
        if job is not None and (job.cancel_requested or job.state == "canceled"):
            response.status_code = 202 if job.running else 200
            if job.ended:
                service.storage.remove(job_id)
                service.webhooks.ended(job_id)
            return JobView.of(job, owner_name)
        before = job or before  # it ended in between
    if cancel_only or not before.ended:
        raise ProblemError(
            409,
            "already_ended",
            f"The job has already {before.state}."
            if before.state != "canceled"
            else "The job is already canceled.",
            remedy="Nothing is left to cancel; DELETE without cancel_only removes the job and its files.",
            where=job_id,
        )
    service.store.delete(job_id)
    service.storage.remove(job_id)
    return Response(status_code=204)
