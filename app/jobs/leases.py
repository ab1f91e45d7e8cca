"""What a service does to the jobs it runs. Each write shows the attempt, and fails once a successor has raised it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from app.job import Job, now
from app.jobs.database import Database, database_time
from app.jobs.progress import overall
from app.jobs.rows import back_to_queue, end, note, note_all, to_job
from app.jobs.tables import ArtifactRow, CheckpointRow, JobRow
from quant_core.spec import RUNNING, STATE_OF, JobFailure, JobState, JobSummary, Progress

BATCH_STEP = 0.25
"""What batches are made smaller by each time that memory runs out in a job."""


class Leases:
    """The jobs that one service holds, each for as long as it renews its lease."""

    def __init__(self, database: Database, holder: str, seconds: float) -> None:
        """Speak for a service.

        Args:
            database: The database.
            holder: A name that no other service ever has.
            seconds: How long a lease lasts.
        """
        self._database = database
        self._holder = holder
        self._seconds = seconds

    def claim(self, devices: Sequence[str]) -> Job | None:
        """Take the oldest queued job that one of these devices may run.

        Args:
            devices: What a job may have asked for to be taken, such as `auto` and `cpu`.

        Returns:
            The job under a new attempt; None if nothing waits.
        """
        waiting = select(JobRow.number).where(JobRow.state == "queued", JobRow.device.in_(devices)).limit(1)
        with self._database.read() as session:
            if session.scalar(waiting) is None:  # asked often, and mostly for nothing
                return None
        oldest = waiting.order_by(JobRow.number).with_for_update(skip_locked=True)
        with self._database.write() as session:
            row = session.scalar(
                update(JobRow)
                .where(JobRow.number == oldest.scalar_subquery(), JobRow.state == "queued")
                .values(
                    state="validating",
                    attempt=JobRow.attempt + 1,
                    holder=self._holder,
                    lease_until=database_time() + self._seconds,
                    started=now(),
                    stage=None,
                    stage_progress=0.0,
                    progress=0.0,
                    message="starting",
                )
                .returning(JobRow)
            )
            if row is None:
                return None
            note(session, row, "state", {"state": row.state, "attempt": row.attempt, "message": row.message})
            return to_job(row)

    def renew(self) -> frozenset[tuple[str, int]]:
        """Prolong every lease of this service.

        Returns:
            Job and attempt of each that it still holds.
        """
        held = JobRow.holder == self._holder, JobRow.state.in_(RUNNING)
        with self._database.read() as session:
            if session.scalar(select(JobRow.number).where(*held).limit(1)) is None:
                return frozenset()
        with self._database.write() as session:
            rows = session.execute(
                update(JobRow)
                .where(*held)
                .values(lease_until=database_time() + self._seconds)
                .returning(JobRow.id, JobRow.attempt)
            )
            return frozenset((job_id, attempt) for job_id, attempt in rows)

    def take_over(
        self, max_interruptions: int, dead: Iterable[str] = (), *, silent_too: bool = True
    ) -> tuple[Job, ...]:
        """Decide what becomes of jobs whose service has fallen silent.

        Args:
            max_interruptions: A job that lost its service this often fails; below it is queued again.
            dead: Services known to have ended, whose leases need not be waited for.
            silent_too: Whether leases that have ended are enough.

        Returns:
            These jobs as they are now.
        """
        gone = JobRow.holder.in_(tuple(dead))
        over = or_(JobRow.lease_until < database_time(), gone) if silent_too else gone
        lost = select(JobRow).where(JobRow.state.in_(RUNNING), over)
        with self._database.read() as session:
            if session.scalar(lost.limit(1)) is None:  # asked often, and mostly for nothing
                return ()
        with self._database.write() as session:
            rows = tuple(session.scalars(lost.with_for_update(skip_locked=True)))
            for row in rows:
                row.interruptions += 1
                if row.cancel_requested:
                    end(session, row, "canceled", None, None)
                elif row.interruptions < max_interruptions:
                    back_to_queue(session, row, "the service ended while the job ran; it starts again")
                else:
                    end(session, row, "failed", _interrupted(row.interruptions), None)
            return tuple(map(to_job, rows))

    def advance(self, job: Job, steps: Iterable[Progress]) -> bool:
        """Write down how far a running job is.

        Args:
            job: The job as it was claimed.
            steps: What its worker said, oldest first.

        Returns:
            False if this attempt no longer holds the job, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return False
            told: list[tuple[str, dict[str, Any]]] = []
            for step in steps:
                row.stage, row.stage_progress, row.message = step.stage, step.fraction, step.message
                row.progress = max(row.progress, overall(step, job.kind))
                if row.state != STATE_OF[step.stage]:
                    row.state = STATE_OF[step.stage]
                    told.append(("state", {"state": row.state, "message": row.message}))
                told.append(("progress", {**step.model_dump(), "progress": row.progress}))
            note_all(session, row, told)
            return True

    def keep_checkpoint(self, job: Job, name: str, key: str, size: int) -> bool:
        """Write down what the next attempt may go on from.

        Args:
            job: The job as it was claimed.
            name: What was reached.
            key: Where it lies in the storage.
            size: Its bytes.

        Returns:
            False if this attempt no longer holds the job, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return False
            session.merge(
                CheckpointRow(
                    job_number=row.number, name=name, attempt=job.attempt, key=key, bytes=size, created=now()
                )
            )
            return True

    def checkpoints(self, job: Job) -> dict[str, str]:
        """Find what earlier attempts left.

        Args:
            job: The job as it was claimed.

        Returns:
            Where in the storage, by name.
        """
        with self._database.read() as session:
            rows = session.execute(
                select(CheckpointRow.name, CheckpointRow.key)
                .join(JobRow, JobRow.number == CheckpointRow.job_number)
                .where(JobRow.id == job.id)
            )
            return {name: key for name, key in rows}  # noqa: C416 - a row is no pair to the type checker

    def finish(
        self,
        job: Job,
        state: JobState,
        *,
        error: JobFailure | None = None,
        summary: JobSummary | None = None,
        artifacts: Iterable[tuple[str, str, int]] = (),
    ) -> bool:
        """End a running job; what earlier attempts left for later ones is forgotten.

        Args:
            job: The job as it was claimed.
            state: `succeeded`, `failed` or `canceled`.
            error: Why it failed.
            summary: What came out.
            artifacts: Name, place in the storage, and bytes of each file of the result.

        Returns:
            False if this attempt no longer holds the job, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return False
            end(session, row, state, error, summary)
            session.execute(delete(CheckpointRow).where(CheckpointRow.job_number == row.number))
            session.add_all(
                ArtifactRow(job_number=row.number, name=name, attempt=job.attempt, key=key, bytes=size)
                for name, key, size in artifacts
            )
            return True

    def requeue(self, job: Job) -> bool:
        """Give a running job back because the service stops in good order.

        Args:
            job: The job as it was claimed.

        Returns:
            False if this attempt no longer holds the job, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return False
            back_to_queue(session, row, "the service stopped; the job goes on with another or the next")
            return True

    def interrupted(self, job: Job, error: JobFailure, max_interruptions: int) -> Job | None:
        """Let a job whose process was lost go on with another one, unless that happened too often.

        Args:
            job: The job as it was claimed.
            error: How the process was lost.
            max_interruptions: A job that lost its process this often fails; below it is queued again.

        Returns:
            The job as it is now; None if this attempt no longer holds it, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return None
            row.processes_lost += 1
            if row.processes_lost < max_interruptions:
                back_to_queue(session, row, f"{error.message} It starts again.")
            else:
                end(session, row, "failed", error, None)
            return to_job(row)

    def ran_out(self, job: Job, error: JobFailure, max_shortages: int) -> Job | None:
        """Let a job that ran out of memory go on with smaller batches, unless that happened too often.

        Args:
            job: The job as it was claimed.
            error: How memory ran out.
            max_shortages: A job that ran out more often fails; else it is queued again.

        Returns:
            The job as it is now; None if this attempt no longer holds it, and nothing was written.
        """
        with self._database.write() as session:
            row = _held(session, job)
            if row is None:
                return None
            row.shortages += 1
            if row.shortages <= max_shortages:
                share = f"{BATCH_STEP**row.shortages:g} of the usual size"
                back_to_queue(session, row, f"{error.message} It starts again with batches of {share}.")
            else:
                end(session, row, "failed", error, None)
            return to_job(row)

    def must_stop(self, job: Job) -> bool:
        """Tell whether this attempt must stop: someone asked for it, or it lost the job.

        Args:
            job: The job as it was claimed.

        Returns:
            True if the attempt must stop.
        """
        held = select(JobRow.cancel_requested).where(*_is_held(job))
        with self._database.read() as session:
            return session.scalar(held) is not False


def _is_held(job: Job) -> tuple[ColumnElement[bool], ...]:
    return JobRow.id == job.id, JobRow.state.in_(RUNNING), JobRow.attempt == job.attempt


def _held(session: Session, job: Job) -> JobRow | None:
    return session.scalar(select(JobRow).where(*_is_held(job)).with_for_update())


def _interrupted(times: int) -> JobFailure:
    return JobFailure(
        code="interrupted",
        message=f"The service ended {times} times while this job ran.",
        remedy="Look in the service's log for why it ended (out of memory is the usual cause), then send it again.",
        retryable=True,
    )
