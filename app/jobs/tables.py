"""The tables: jobs and what belongs to them, and the keys they are sent with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """An aware time, stored as seconds since the epoch: SQLite forgets time zones."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Store a time.

        Args:
            value: An aware time.
            dialect: The database.

        Returns:
            Seconds since the epoch.
        """
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read a time.

        Args:
            value: Seconds since the epoch.
            dialect: The database.

        Returns:
            The time in UTC.
        """
        return None if value is None else datetime.fromtimestamp(value, UTC)


class Base(DeclarativeBase):
    """Collects the tables."""


class JobRow(Base):
    """A job. `attempt` is the fencing token: writes of a worker name it, and a successor raises it.

    `holder` is the service that runs the job and `lease_until` how long it may stay silent, in seconds of the
    database's clock; `called_until` says the same of who calls its `webhook`. `owner` is the id of a key, `local` where
    the service asks for none.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_state", "state", "number"),
        Index("jobs_by_owner", "owner", "number"),
        UniqueConstraint("owner", "idempotency_key", name="jobs_once"),
    )

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(32), default="local")
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    processes_lost: Mapped[int] = mapped_column(default=0, server_default="0")
    shortages: Mapped[int] = mapped_column(default=0, server_default="0")
    holder: Mapped[str | None] = mapped_column(String(128), default=None)
    lease_until: Mapped[float | None] = mapped_column(Float, default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    device: Mapped[str] = mapped_column(String(16))
    tags: Mapped[str] = mapped_column(Text, default=",")
    model: Mapped[str] = mapped_column(String(255))
    data: Mapped[str] = mapped_column(String(255))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    stage: Mapped[str | None] = mapped_column(String(32), default=None)
    stage_progress: Mapped[float] = mapped_column(Float, default=0.0)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    message: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), default=None)
    fingerprint: Mapped[str | None] = mapped_column(String(64), default=None)
    webhook: Mapped[str | None] = mapped_column(Text, default=None)
    called_until: Mapped[float | None] = mapped_column(Float, default=None)
    trace: Mapped[str | None] = mapped_column(String(64), default=None)
    created: Mapped[datetime] = mapped_column(UtcTime)
    started: Mapped[datetime | None] = mapped_column(UtcTime, default=None)
    finished: Mapped[datetime | None] = mapped_column(UtcTime, default=None)


class EventRow(Base):
    """Something that happened to a job, numbered from 1 within it."""

    __tablename__ = "events"

    job_number: Mapped[int] = mapped_column(ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class CheckpointRow(Base):
    """What an attempt left for the next one, below `key` in the storage; the latest of each name."""

    __tablename__ = "checkpoints"

    job_number: Mapped[int] = mapped_column(ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    attempt: Mapped[int]
    key: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(UtcTime)


class ArtifactRow(Base):
    """One file of a result, at `key` in the storage."""

    __tablename__ = "artifacts"

    job_number: Mapped[int] = mapped_column(ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    attempt: Mapped[int]
    key: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)


class KeyRow(Base):
    """A key: SHA-256 of its secret, what it may do, and how much of it."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    requests_per_minute: Mapped[int]
    active_jobs: Mapped[int]
    created: Mapped[datetime] = mapped_column(UtcTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcTime, default=None)
