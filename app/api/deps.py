"""What routes are given: the parts of the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.api.problems import ProblemError
from app.jobs.job import Job
from app.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


def _job(service: ServiceDep, job_id: Annotated[str, Path(description="The job's id.")]) -> Job:
    job = service.store.get(job_id)
    if job is None:
        raise no_such_job(job_id)
    return job


JobDep = Annotated[Job, Depends(_job)]


def no_such_job(job_id: str) -> ProblemError:
    """Say that a job does not exist.

    Args:
        job_id: What was asked for.

    Returns:
        The error to raise.
    """
    return ProblemError(
        404,
        "no_such_job",
        "There is no job of this id.",
        remedy="List the jobs with GET /jobs; ended jobs may have been deleted.",
        where=job_id,
    )
