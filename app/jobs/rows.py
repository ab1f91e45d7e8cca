"""Changes of a job's row that more than one place makes; each is noted among the job's events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.job import Job, now
from app.jobs.tables import EventRow, JobRow
from quant_core.spec import JobFailure, JobState, JobSummary

WAITING = "waiting for a free device"


def to_job(row: JobRow) -> Job:
    """Read a row.

    Args:
        row: The row.

    Returns:
        The job.
    """
    fields = {name: getattr(row, name) for name in Job.model_fields if name != "tags"}
    return Job.model_validate(
        {**fields, "tags": tuple(row.tags.strip(",").split(",")) if row.tags != "," else ()}
    )


def joined(tags: tuple[str, ...]) -> str:
    """Write tags as one text in which each stands between commas.

    Args:
        tags: Words without commas.

    Returns:
        The text.
    """
    return "".join(f",{tag}" for tag in tags) + ","


def note(session: Session, row: JobRow, kind: str, data: dict[str, Any]) -> None:
    """Add an event; whoever calls holds the row.

    Args:
        session: A session that writes.
        row: The job.
        kind: `state` or `progress`.
        data: What clients receive.
    """
    note_all(session, row, [(kind, data)])


def note_all(session: Session, row: JobRow, told: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Add events; whoever calls holds the row.

    Args:
        session: A session that writes.
        row: The job.
        told: Kind of each, `state` or `progress`, and what clients receive; oldest first.
    """
    last = session.scalar(select(func.max(EventRow.number)).where(EventRow.job_number == row.number))
    session.add_all(
        EventRow(job_number=row.number, number=number, kind=kind, data=data)
        for number, (kind, data) in enumerate(told, start=(last or 0) + 1)
    )
    session.flush()


def end(
    session: Session, row: JobRow, state: JobState, error: JobFailure | None, summary: JobSummary | None
) -> None:
    """End a job.

    Args:
        session: A session that writes.
        row: The job.
        state: `succeeded`, `failed` or `canceled`.
        error: Why it failed.
        summary: What came out.
    """
    row.state, row.finished = state, now()
    row.holder = row.lease_until = None
    row.error = None if error is None else error.model_dump()
    row.summary = None if summary is None else summary.model_dump()
    row.message = {"succeeded": "done", "canceled": "canceled"}.get(state, "") or (
        error.message if error else ""
    )
    if state == "succeeded":
        row.progress = row.stage_progress = 1.0
    note(session, row, "state", {"state": state, "message": row.message, "error": row.error})


def back_to_queue(session: Session, row: JobRow, message: str) -> None:
    """Let a job be claimed again.

    Args:
        session: A session that writes.
        row: The job.
        message: Why, for people.
    """
    row.state, row.started, row.message = "queued", None, message
    row.holder = row.lease_until = None
    row.stage, row.stage_progress, row.progress = None, 0.0, 0.0
    note(session, row, "state", {"state": "queued", "message": message})
