"""The connection to SQLite: write-ahead log, foreign keys, and transactions that say what they will do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from app.jobs.tables import SCHEMA_VERSION, Base
from quant_core.errors import UserError


class WrongSchemaError(UserError):
    """The database was written by another version of Bitwright."""

    code = "schema"


class Database:
    """One SQLite file, safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._engine = create_engine(
            f"sqlite:///{path}", connect_args={"timeout": 30}, pool_size=16, max_overflow=64
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        _create_tables(self._engine, path)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that only reads.

        Yields:
            The session.
        """
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that writes; it commits at the end and rolls back on an error.

        Yields:
            The session.
        """
        # Taking the write lock first: a reader that turns writer half-way is refused without waiting.
        with (
            self._engine.connect().execution_options(writes=True) as connection,
            Session(connection) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _create_tables(engine: Engine, path: Path) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version not in {0, SCHEMA_VERSION}:
            raise WrongSchemaError(
                f"the tables are of version {version}, and this Bitwright reads version {SCHEMA_VERSION}.",
                remedy="Use the Bitwright that wrote them, or another data folder.",
                where=str(path),
            )
        Base.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
