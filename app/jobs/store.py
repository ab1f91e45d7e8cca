"""What requests ask of the jobs: create, find, list, cancel, delete, expire."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.job import Job, JobEvent, kind_of, now
from app.jobs.database import Database
from app.jobs.rows import WAITING, end, joined, note, to_job
from app.jobs.tables import ArtifactRow, EventRow, JobRow
from quant_core.spec import ENDED, RUNNING, JobSpec, JobState

_ACTIVE: tuple[JobState, ...] = ("queued", *sorted(RUNNING))


@dataclass(frozen=True)
class Submission:
    """A job to be queued.

    Attributes:
        id: Its name.
        model: File name of the model.
        data: File name of the samples.
        spec: What is asked.
        owner: Id of the key it was sent with, or `local`.
        tags: Words to find it by.
        idempotency_key: The owner's own name for this request.
        fingerprint: Tells this request from others under the same key.
        webhook: Where to tell that it ended.
        trace: The span of the request.
        active_limit: The most jobs of this owner that may wait or run, with this one.
    """

    id: str
    model: str
    data: str
    spec: JobSpec
    owner: str = "local"
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    fingerprint: str | None = None
    webhook: str | None = None
    trace: str | None = None
    active_limit: int | None = None


@dataclass(frozen=True)
class Filter:
    """Which jobs to list.

    Attributes:
        owner: Only jobs of this key; None for all.
        states: Only jobs in one of these states; empty for all.
        tags: Only jobs that have every one of these.
        words: Only jobs that have every one of these in their file names, tags or id, in upper or lower case.
    """

    owner: str | None = None
    states: tuple[JobState, ...] = ()
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class TooManyJobsError(Exception):
    """The owner has as many jobs waiting and running as its key allows."""


class JobStore:
    """The jobs, their events and their results."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, submission: Submission) -> Job:
        """Queue a job, or find the one that was queued under the same idempotency key.

        Args:
            submission: The job.

        Returns:
            The job; it has another id than asked if it was there already.

        Raises:
            TooManyJobsError: If the owner has too many.
            IntegrityError: If there is a job of this name.
        """
        name = submission.owner, submission.idempotency_key
        try:
            with self._database.write() as session:
                row = _repeated(session, *name)
                return _insert(session, submission) if row is None else to_job(row)
        except IntegrityError:  # another service was faster by an instant
            with self._database.read() as session:
                row = _repeated(session, *name)
                if row is None:
                    raise
                return to_job(row)

    def check_room(self, owner: str, limit: int) -> None:
        """See that an owner may have one more job, as `create` does again.

        Args:
            owner: Whose jobs.
            limit: How many may wait and run.

        Raises:
            TooManyJobsError: If the owner has as many.
        """
        with self._database.read() as session:
            _check_room(session, owner, limit)

    def repeated(self, owner: str, idempotency_key: str) -> tuple[Job, str | None] | None:
        """Find the job that was queued under an idempotency key.

        Args:
            owner: Whose key.
            idempotency_key: The key.

        Returns:
            The job and the fingerprint of its request, or None.
        """
        with self._database.read() as session:
            row = _repeated(session, owner, idempotency_key)
            return None if row is None else (to_job(row), row.fingerprint)

    def get(self, job_id: str) -> Job | None:
        """Find a job.

        Args:
            job_id: Its name.

        Returns:
            The job, or None if there is none of this name.
        """
        with self._database.read() as session:
            row = session.scalar(_by_id(job_id))
            return None if row is None else to_job(row)

    def page(self, which: Filter, *, limit: int, offset: int) -> tuple[tuple[Job, ...], int]:
        """List jobs, newest first.

        Args:
            which: Which jobs.
            limit: How many at most.
            offset: How many to pass over.

        Returns:
            The jobs, and how many there are in all.
        """
        chosen = _conditions(which)
        with self._database.read() as session:
            rows = session.scalars(
                select(JobRow).where(*chosen).order_by(JobRow.number.desc()).limit(limit).offset(offset)
            )
            jobs = tuple(map(to_job, rows))
            total = session.scalar(select(func.count()).select_from(JobRow).where(*chosen))
            return jobs, total or 0

    def counts(self) -> dict[str, int]:
        """Count jobs.

        Returns:
            How many by state.
        """
        with self._database.read() as session:
            rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            return {state: count for state, count in rows}  # noqa: C416 - a row is no pair to the type checker

    def ids_with_files(self) -> frozenset[str]:
        """Name the jobs whose files are still needed; a job that failed or was canceled keeps none.

        Returns:
            The names of jobs that wait, run, or succeeded.
        """
        with self._database.read() as session:
            return frozenset(
                session.scalars(select(JobRow.id).where(JobRow.state.in_((*_ACTIVE, "succeeded"))))
            )

    def events(self, job_id: str, *, after: int, limit: int = 500) -> tuple[JobEvent, ...]:
        """Read what happened to a job.

        Args:
            job_id: Its name.
            after: Only events with a higher number.
            limit: How many at most.

        Returns:
            The events, oldest first.
        """
        return self.news(job_id, after=after, limit=limit)[0]

    def news(self, job_id: str, *, after: int, limit: int = 500) -> tuple[tuple[JobEvent, ...], bool]:
        """Read what happened to a job, and whether more can follow; asked often, it looks at no more than that takes.

        Args:
            job_id: Its name.
            after: Only events with a higher number.
            limit: How many at most.

        Returns:
            The events, oldest first, and whether the job had ended before they were read, or is not there: where it
            had and there are none, none ever follow.
        """
        with self._database.read() as session:
            found = session.execute(
                select(JobRow.number, JobRow.state).where(JobRow.id == job_id)
            ).one_or_none()
            if found is None:
                return (), True
            number, state = found
            rows = session.scalars(
                select(EventRow)
                .where(EventRow.job_number == number, EventRow.number > after)
                .order_by(EventRow.number)
                .limit(limit)
            )
            events = tuple(
                JobEvent.model_validate({"number": row.number, "kind": row.kind, "data": row.data})
                for row in rows
            )
            return events, state in ENDED

    def artifact(self, job_id: str, name: str) -> str | None:
        """Find a file of a job's result.

        Args:
            job_id: The job.
            name: The file.

        Returns:
            Where it lies in the storage, or None if the result has no such file.
        """
        with self._database.read() as session:
            return session.scalar(
                select(ArtifactRow.key)
                .join(JobRow, JobRow.number == ArtifactRow.job_number)
                .where(JobRow.id == job_id, ArtifactRow.name == name)
            )

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a queued job, or ask a running one to stop; leave an ended one alone.

        Args:
            job_id: Its name.

        Returns:
            The job as it is now, or None if there is none of this name.
        """
        with self._database.write() as session:
            row = session.scalar(_by_id(job_id).with_for_update())
            if row is None:
                return None
            if row.state == "queued":
                end(session, row, "canceled", None, None)
            elif row.state in RUNNING and not row.cancel_requested:
                row.cancel_requested = True
                row.message = "stopping"
            return to_job(row)

    def delete(self, job_id: str) -> bool:
        """Forget an ended job and all that belongs to it.

        Args:
            job_id: Its name.

        Returns:
            False if there is no ended job of this name.
        """
        with self._database.write() as session:
            row = session.scalar(_by_id(job_id).with_for_update())
            if row is None or not to_job(row).ended:
                return False
            session.delete(row)
            return True

    def expire(self, before: datetime) -> tuple[str, ...]:
        """Mark results as expired; their files are the caller's to remove.

        Args:
            before: Those of jobs that succeeded before this.

        Returns:
            The names of the jobs.
        """
        old = select(JobRow).where(JobRow.state == "succeeded", JobRow.finished < before)
        with self._database.write() as session:
            rows = tuple(session.scalars(old.with_for_update(skip_locked=True)))
            for row in rows:
                row.state, row.message = "expired", "its files were removed after their time"
                note(session, row, "state", {"state": row.state, "message": row.message})
            return tuple(row.id for row in rows)


def _by_id(job_id: str) -> Select[JobRow]:
    return select(JobRow).where(JobRow.id == job_id)


def _conditions(which: Filter) -> Collection[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = []
    if which.owner is not None:
        chosen.append(JobRow.owner == which.owner)
    if which.states:
        chosen.append(JobRow.state.in_(which.states))
    chosen += [JobRow.tags.contains(f",{tag},", autoescape=True) for tag in which.tags]
    # One text for all, as words hold no spaces: to look at four by themselves takes twice as long.
    searched = JobRow.model + " " + JobRow.data + " " + JobRow.tags + " " + JobRow.id
    chosen += [searched.icontains(word, autoescape=True) for word in which.words]
    return chosen


def _repeated(session: Session, owner: str, idempotency_key: str | None) -> JobRow | None:
    if idempotency_key is None:
        return None
    return session.scalar(
        select(JobRow).where(JobRow.owner == owner, JobRow.idempotency_key == idempotency_key)
    )


def _check_room(session: Session, owner: str, limit: int) -> None:
    active = select(func.count()).where(JobRow.owner == owner, JobRow.state.in_(_ACTIVE))
    if (session.scalar(active) or 0) >= limit:
        raise TooManyJobsError


def _insert(session: Session, submission: Submission) -> Job:
    if submission.active_limit is not None:
        _check_room(session, submission.owner, submission.active_limit)
    row = JobRow(
        id=submission.id,
        owner=submission.owner,
        kind=kind_of(submission.spec),
        device=submission.spec.device,
        tags=joined(submission.tags),
        model=submission.model,
        data=submission.data,
        spec=submission.spec.model_dump(mode="json"),
        idempotency_key=submission.idempotency_key,
        fingerprint=submission.fingerprint,
        webhook=submission.webhook,
        trace=submission.trace,
        message=WAITING,
        created=now(),
    )
    session.add(row)
    session.flush()
    note(session, row, "state", {"state": "queued", "message": row.message})
    return to_job(row)
