"""Whom to tell that a job has ended, and which of the services that share a database does so."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import or_, select, update

from app.jobs.database import Database, database_time
from app.jobs.tables import JobRow

Turn = Literal["ours", "another's", "nobody's"]
"""Whose call it is: that of who asks, of a service that is at it, or nobody's any more."""


class Calls:
    """The webhooks of ended jobs, each called by one service at a time."""

    def __init__(self, database: Database) -> None:
        """Read and write one database.

        Args:
            database: The jobs' database.
        """
        self._database = database

    def address(self, job_id: str) -> str | None:
        """Tell where the end of a job is to be told.

        Args:
            job_id: The job.

        Returns:
            The address, if one was given and is still to be told.
        """
        with self._database.read() as session:
            return session.scalar(select(JobRow.webhook).where(JobRow.id == job_id))

    def untold(self, since: datetime, before: datetime) -> tuple[str, ...]:
        """Find ended jobs whose end is still to be told, as when the service that was to do it has ended.

        Args:
            since: Only those that ended after this.
            before: Only those that ended before this.

        Returns:
            Their names, the one that ended first in front.
        """
        left = select(JobRow.id).where(
            JobRow.webhook.is_not(None), JobRow.finished > since, JobRow.finished < before
        )
        with self._database.read() as session:
            return tuple(session.scalars(left.order_by(JobRow.finished)))

    def claim(self, job_id: str, seconds: float) -> Turn:
        """Take a call, so that no other service makes it meanwhile.

        Args:
            job_id: The job.
            seconds: How long at most, by the database's clock.

        Returns:
            Whose it is.
        """
        free = or_(JobRow.called_until.is_(None), JobRow.called_until < database_time())
        mine = (
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.webhook.is_not(None), free)
            .values(called_until=database_time() + seconds)
        )
        with self._database.write() as session:
            if session.scalar(mine.returning(JobRow.id)) is not None:
                return "ours"
        return "nobody's" if self.address(job_id) is None else "another's"

    def failed(self, job_id: str) -> None:
        """Let go of a call that nobody heard.

        Args:
            job_id: The job.
        """
        with self._database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(called_until=None))

    def told(self, job_id: str) -> None:
        """Note that nobody is to be told of the end of a job any more.

        Args:
            job_id: The job.
        """
        with self._database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(webhook=None, called_until=None))
