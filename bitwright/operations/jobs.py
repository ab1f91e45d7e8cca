"""Looking at jobs, ending them, and asking for what they found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from pydantic import BaseModel

from bitwright.errors import InvalidRequestError
from bitwright.requests import naming_fields, read_answer, read_request
from bitwright.results import Health, JobInfo, JobState
from bitwright.steps import Ask, Operation, Send
from quant_core.spec import BitPlan, PlanSpec, QuantizeSpec, Report, SensitivityTable

JSON = {"Accept": "application/json"}

_PAGE = 200
"""The most jobs that a service tells at once."""


class _Page(BaseModel):
    jobs: tuple[JobInfo, ...]


def address(job_id: str, part: str = "") -> str:
    """Give the address of a job.

    Args:
        job_id: Its name.
        part: What of it, such as `/report`.

    Returns:
        The path of the request.

    Raises:
        InvalidRequestError: If no job can have this name; a path such as `../uploads/x` would mean something else.
    """
    if re.fullmatch(r"[\w-]+", job_id, re.ASCII) is None:
        raise InvalidRequestError(
            "this is not the id of a job.",
            remedy="`bitwright jobs` and client.jobs.list() tell the ids.",
            where=repr(job_id),
            code="job_id",
        )
    return f"/jobs/{job_id}{part}"


def get(job_id: str) -> Operation[JobInfo]:
    """Look at a job.

    Args:
        job_id: Its name.

    Returns:
        The job.
    """
    response: httpx.Response = yield Ask(Send("GET", address(job_id)))
    return read_answer(JobInfo, response.content)


def page(
    states: Sequence[JobState], tags: Sequence[str], text: str, limit: int, offset: int
) -> Operation[tuple[JobInfo, ...]]:
    """List jobs, newest first, in as many requests as that takes.

    Args:
        states: Only jobs in one of these states; all if there are none.
        tags: Only jobs with all of these tags.
        text: Only jobs with all of these words in their file names, tags or id.
        limit: How many at most.
        offset: How many newer ones to pass over.

    Returns:
        The jobs.
    """
    found: dict[str, JobInfo] = {}  # by id: what is sent meanwhile moves older ones into the next page
    repeated = 0
    while True:
        wanted = min(limit - len(found) + repeated, _PAGE)
        query: dict[str, Any] = {"limit": wanted, "offset": offset, "state": list(states), "tag": list(tags)}
        if text:
            query["text"] = text
        response: httpx.Response = yield Ask(Send("GET", "/jobs", params=query))
        told = read_answer(_Page, response.content).jobs
        repeated += sum(job.id in found for job in told)
        found |= {job.id: job for job in told}
        offset += len(told)
        if len(told) < wanted or len(found) >= limit:
            return tuple(found.values())[:limit]


def cancel(job_id: str) -> Operation[JobInfo]:
    """Cancel a job while it waits or runs.

    Args:
        job_id: Its name.

    Returns:
        The job.
    """
    request = Send("DELETE", address(job_id), params={"cancel_only": "true"}, safe=False)
    response: httpx.Response = yield Ask(request)
    return read_answer(JobInfo, response.content)


def delete(job_id: str) -> Operation[None]:
    """Delete an ended job and its files; cancel one that has not ended.

    Args:
        job_id: Its name.

    Returns:
        Nothing.
    """
    yield Ask(Send("DELETE", address(job_id), safe=False))


def report(job_id: str) -> Operation[Report]:
    """Read a job's report.

    Args:
        job_id: Its name.

    Returns:
        The report.
    """
    response: httpx.Response = yield Ask(Send("GET", address(job_id, "/report"), headers=JSON))
    return read_answer(Report, response.content)


def sensitivities(job_id: str) -> Operation[SensitivityTable]:
    """Read a job's sensitivity table.

    Args:
        job_id: Its name.

    Returns:
        The table.
    """
    response: httpx.Response = yield Ask(
        Send("GET", address(job_id, "/files/sensitivity.json"), headers=JSON)
    )
    return read_answer(SensitivityTable, response.content)


def plan(job_id: str, given: Mapping[str, Any]) -> Operation[BitPlan]:
    """Ask for another plan from what a job measured.

    Args:
        job_id: Its name.
        given: Fields of `PlanSpec`, shorthand included.

    Returns:
        The plan.
    """
    spec = read_request(PlanSpec, given)
    body = spec.model_dump_json().encode()
    request = Send("POST", address(job_id, "/plans"), headers={"Content-Type": "application/json"}, body=body)
    with naming_fields(spec, "body"):
        response: httpx.Response = yield Ask(request)
    return read_answer(BitPlan, response.content)


def health() -> Operation[Health]:
    """Ask how the service is.

    Returns:
        What it says.
    """
    response: httpx.Response = yield Ask(Send("GET", "/healthz"))
    return read_answer(Health, response.content)


def asked_again(info: JobInfo, options: Mapping[str, Any]) -> QuantizeSpec:
    """Put together what a new job is asked after an earlier one.

    Args:
        info: The earlier job.
        options: What differs.

    Returns:
        What the earlier one was asked, but for its budget, with the options on top.
    """
    asked = info.spec.model_dump(include=set(QuantizeSpec.model_fields) - {"budget"})
    if "bits" in options:
        asked.pop("weight_bits")
    return read_request(QuantizeSpec, asked | dict(options))
