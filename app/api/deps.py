"""What routes are given: the parts of the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.api.guard import key_of
from app.api.problems import ProblemError
from app.jobs.job import Job
from app.keys import LOCAL_OWNER
from app.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


def owner_of(request: Request) -> str:
    """Tell whose a request is.

    Args:
        request: The request.

    Returns:
        The id of the key it was sent with; `local` where none is asked for.
    """
    key = key_of(request)
    return LOCAL_OWNER if key is None else key.id


OwnerDep = Annotated[str, Depends(owner_of)]


def owner_name_of(request: Request) -> str:
    """Tell whose a request is, for people.

    Args:
        request: The request.

    Returns:
        The name of the key it was sent with; `local` where none is asked for.
    """
    key = key_of(request)
    return LOCAL_OWNER if key is None else key.name


OwnerNameDep = Annotated[str, Depends(owner_name_of)]


def find_job(service: Service, owner: str, job_id: str) -> Job:
    """Find a job of one's own; another's is as good as none.

    Args:
        service: The service.
        owner: Who asks.
        job_id: The job.

    Returns:
        The job.

    Raises:
        ProblemError: If there is none.
    """
    job = service.store.get(job_id)
    if job is None or job.owner != owner:
        missing = no_such_job(job_id)
        raise missing
    return job


def _job(
    service: ServiceDep, owner: OwnerDep, job_id: Annotated[str, Path(description="The job's id.")]
) -> Job:
    return find_job(service, owner, job_id)


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
