"""What the service knows of a job beyond what it tells, and what happened to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from quant_core.spec import AnalyzeSpec, JobInfo, JobKind, JobSpec


class Job(JobInfo):
    """One job as the table knows it; `attempt` is also the token that every later write must show.

    Attributes:
        owner: Id of the key it was sent with; `local` where the service asks for none.
        interruptions: How often its service was lost while the job ran.
        processes_lost: How often its process alone was lost.
        shortages: How often memory ran out while it ran.
        trace: The span of the request that it was sent with, as W3C's `traceparent`.
    """

    owner: str = "local"
    interruptions: int = 0
    processes_lost: int = 0
    shortages: int = 0
    trace: str | None = None


class JobEvent(BaseModel):
    """Something that happened to a job.

    Attributes:
        number: Its place among the job's events, from 1.
        kind: `state` or `progress`.
        data: What the client receives.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    kind: Literal["state", "progress"]
    data: dict[str, Any]


def kind_of(spec: JobSpec) -> JobKind:
    """Tell what a request asks for.

    Args:
        spec: The request.

    Returns:
        `quantize` or `analyze`.
    """
    return "analyze" if isinstance(spec, AnalyzeSpec) else "quantize"


def now() -> datetime:
    """Give the present moment.

    Returns:
        The time in UTC.
    """
    return datetime.now(UTC)
