"""What routes are given: the parts of the running service."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import Annotated

from fastapi import Depends, Path, Request

from app.api.guard import key_of
from app.api.problems import ProblemError
from app.job import Job
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


def _known_query(request: Request) -> None:
    times = Counter(name for name, _ in request.query_params.multi_items())
    if not times:
        return
    told = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = {
        parameter["name"]: parameter["schema"]
        for parameter in told.get("parameters", ())
        if parameter["in"] == "query"
    }
    if not known:
        return
    for name, schema in known.items():
        if times[name] > 1 and schema.get("type") != "array":
            raise ProblemError(
                422,
                "request",
                f"The parameter {name!r} is there {times[name]} times, and only one can hold.",
                remedy="Leave all but one of them out.",
                where=f"query.{name}",
            )
    unknown = next((name for name in times if name not in known), None)
    if unknown is None:
        return
    near = get_close_matches(unknown, sorted(known), 1)
    spec = "what is asked goes into the form's `spec`; " if request.method == "POST" else ""
    raise ProblemError(
        422,
        "request",
        f"There is no parameter {unknown[:200]!r} here" + (f"; did you mean {near[0]!r}?" if near else "."),
        remedy=f"Take it out of the address; {spec}/docs lists what it takes.",
        where=f"query.{unknown[:200]}",
    )


KnownQuery = Depends(_known_query)
"""For every route that has parameters in the query: what is misspelt, or said twice where one can hold, is refused."""


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
        raise ProblemError(
            404,
            "no_such_job",
            "There is no job of this id.",
            remedy="List the jobs with GET /jobs; ended jobs may have been deleted.",
            where=job_id,
        )
    return job


def _job(
    service: ServiceDep, owner: OwnerDep, job_id: Annotated[str, Path(description="The job's id.")]
) -> Job:
    return find_job(service, owner, job_id)


JobDep = Annotated[Job, Depends(_job)]
