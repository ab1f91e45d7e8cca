"""The connection to SQLite or PostgreSQL, and the tables brought to this version when it is opened."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ExceptionContext,
    Float,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, InternalError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from app.jobs.migrations import HEAD
from app.jobs.tables import Base, JobRow
from quant_core.errors import UserError

_PATIENCE: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""What a PostgreSQL whose machine or network is gone may cost: seconds, but for the last, of milliseconds."""

_SQLITE_SECONDS = 30
"""How long SQLite waits for what another has locked."""

_PASSING = frozenset({"25P03", "25P04", "25006"})
"""What PostgreSQL says of a transaction that it ended for its length, and of writing to a server that just follows
another: states of a server that pass, which its driver counts among errors of its own."""

_VERSION = Table(
    "alembic_version", MetaData(), Column("version_num", String(32), primary_key=True)
).c.version_num
"""Where Alembic keeps the version of the tables."""

_MIGRATION_LOCK = 0x62697477  # any number that nobody else locks in this database


class WrongSchemaError(UserError):
    """The database was written by another version of Bitwright."""

    code = "schema"


class DatabaseError(UserError):
    """The database cannot be reached."""

    code = "database"


class database_time(FunctionElement[float]):  # noqa: N801 - reads like an SQL function
    """Seconds since the epoch by the database's clock, so that services need not agree on the time."""

    type = Float()
    inherit_cache = True


@compiles(database_time, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_time, "postgresql")
def _postgresql_time(*_: Any, **__: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"


def sqlite_url(path: Path) -> str:
    """Address a SQLite file.

    Args:
        path: The file; made if missing.

    Returns:
        Its URL.
    """
    return f"sqlite:///{path}"


class Database:
    """One database, safe to use from several threads and by several services."""

    def __init__(self, url: str) -> None:
        """Open a database and bring its tables to this version.

        Args:
            url: `sqlite:///path` or `postgresql://user:password@host/name`.

        Raises:
            DatabaseError: If it cannot be reached, or is neither SQLite nor PostgreSQL.
            WrongSchemaError: If a newer or much older Bitwright wrote it.
        """
        self._engine = _engine(url)
        try:
            with self._writing() as connection:
                _upgrade(connection, self.name)
        except OperationalError as error:
            self.close()
            raise DatabaseError(
                f"the database does not answer: {str(error.orig).strip()}",
                remedy="Check BITWRIGHT_DATABASE_URL and that the database runs.",
                where=self.name,
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Its URL without the password."""
        return self._engine.url.render_as_string(hide_password=True)

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
        with (
            self._engine.connect().execution_options(writes=True) as connection,
            Session(connection) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseError(
            "this is not the URL of a database.",
            remedy="Write sqlite:///path or postgresql://user:password@host/name.",
            where="BITWRIGHT_DATABASE_URL",
        ) from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        engine = create_engine(
            parsed, connect_args={"timeout": _SQLITE_SECONDS}, pool_size=16, max_overflow=64
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if kind in {"postgresql", "postgres"}:
        # A connection that died with the database's last restart is replaced, not handed out.
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args=_PATIENCE,
            pool_size=16,
            max_overflow=16,
            pool_pre_ping=True,
        )
        event.listen(engine, "connect", _configure_postgresql)
        event.listen(engine, "handle_error", _name_passing, retval=True)
        return engine
    raise DatabaseError(
        f"{kind} is no database that Bitwright keeps jobs in.",
        remedy="Write sqlite:///path or postgresql://user:password@host/name.",
        where="BITWRIGHT_DATABASE_URL",
    )


def _configure_postgresql(connection: Any, _record: Any) -> None:
    # Who freezes in a transaction would keep its jobs locked. No option of the start: the URL may have its own.
    connection.execute("SET idle_in_transaction_session_timeout = '30s'")
    connection.commit()


def _name_passing(context: ExceptionContext) -> BaseException | None:
    """Give what passes the class that all of us take for that."""
    error, cause = context.sqlalchemy_exception, context.original_exception
    if isinstance(error, InternalError) and getattr(cause, "sqlstate", None) in _PASSING:
        return OperationalError(
            error.statement, error.params, cause, connection_invalidated=context.is_disconnect
        )
    return None


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own
    connection.create_function("lower", 1, _lower, deterministic=True)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_SECONDS * 1000}")
    _write_ahead(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Keep a write-ahead log. Who finds another at turning it on is refused at once, whatever the timeout is."""
    deadline = time.monotonic() + _SQLITE_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _lower(text: str | None) -> str | None:
    """SQLite's own leaves all but ASCII as it is; what is looked for in any case would not be found."""
    return None if text is None else text.lower()


def _begin_sqlite(connection: Connection) -> None:
    # Taking the write lock first: a reader that turns writer half-way is refused without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection, where: str) -> None:
    if (
        connection.dialect.name == "postgresql"
    ):  # two services that start together; SQLite holds its lock already
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    tables = inspect(connection)
    found = set(connection.scalars(select(_VERSION)) if tables.has_table(_VERSION.table.name) else ())
    if found == {HEAD}:
        return
    if not found and not tables.has_table(JobRow.__tablename__):
        Base.metadata.create_all(connection)
        _VERSION.table.create(connection, checkfirst=True)
        connection.execute(insert(_VERSION.table).values({_VERSION: HEAD}))
        return
    from app.jobs.migrations.apply import upgrade  # Alembic takes 11 MB, which few starts need

    if not upgrade(connection, found):
        raise WrongSchemaError(
            f"the tables are of version {', '.join(found) or 'unknown'}, which this Bitwright does not read.",
            remedy="Use the Bitwright that wrote them, or another database.",
            where=where,
        )
