"""The tables are those of the code, whichever version made them, and strangers' tables are left alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from app.job import now
from app.jobs.database import Database, DatabaseError, WrongSchemaError, database_time, sqlite_url
from app.jobs.migrations import HEAD, apply
from app.jobs.migrations.apply import scripts
from app.jobs.store import Filter, JobStore
from app.jobs.tables import Base


@pytest.mark.parametrize("by", ["fresh", "upgrade"])
def test_the_last_version_has_the_tables_that_the_code_knows(database: Database, by: str) -> None:
    with database.write() as session:
        connection = session.connection()
        if by == "upgrade":
            Base.metadata.drop_all(connection)
            session.execute(text("DELETE FROM alembic_version"))
            config, _ = scripts()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_heads() == (HEAD,)


def test_the_version_that_the_code_knows_is_the_last() -> None:
    assert scripts()[1].get_heads() == [HEAD]


def test_tables_of_an_earlier_version_are_brought_to_the_last(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Database(database_url)
    with made.write() as session:
        connection = session.connection()
        Base.metadata.drop_all(connection)
        session.execute(text("DELETE FROM alembic_version"))
        config, _ = scripts()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    made.close()
    applied: list[set[str]] = []
    real = apply.upgrade
    monkeypatch.setattr(
        apply, "upgrade", lambda connection, found: applied.append(found) or real(connection, found)
    )
    made = Database(database_url)
    assert applied == [{"0001"}]
    assert JobStore(made).page(Filter(), limit=1, offset=0) == ((), 0)  # every column is there
    made.close()


def test_services_that_start_together_make_the_tables_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        for made in threads.map(lambda _: Database(database_url), range(4)):
            made.close()


def test_a_service_that_finds_another_writing_waits_to_turn_its_log_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("CREATE TABLE another (id INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    ended = threading.Timer(0.2, other.rollback)
    ended.start()
    Database(sqlite_url(path)).close()
    assert not other.in_transaction
    other.close()


def test_tables_of_a_newer_version_are_refused(database_url: str) -> None:
    made = Database(database_url)
    with made.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '99'"))
    made.close()
    with pytest.raises(WrongSchemaError, match="version 99"):
        Database(database_url)


def test_tables_without_a_version_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        connection.execute("CREATE TABLE jobs (id INTEGER)")
    connection.close()
    with pytest.raises(WrongSchemaError, match="version unknown"):
        Database(sqlite_url(tmp_path / "x.sqlite"))


def test_time_is_that_of_the_database(database: Database) -> None:
    before = now().timestamp()
    with database.read() as session:
        seconds = session.scalar(select(database_time()))
    assert before - 0.01 < seconds < now().timestamp() + 0.01  # SQLite counts milliseconds


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@host/name", "no url", "postgresql://u:secret@127.0.0.1:1/name"]
)
def test_what_cannot_be_opened_says_so_and_hides_the_password(url: str) -> None:
    with pytest.raises(DatabaseError) as told:
        Database(url)
    assert told.value.remedy
    assert "secret" not in str(told.value) + str(told.value.where)


def test_a_service_that_freezes_in_a_transaction_holds_nobody_up(fresh_postgresql: Callable[[], str]) -> None:
    url = fresh_postgresql()
    frozen, other = Database(url), Database(url)
    with pytest.raises(OperationalError, match="idle-in-transaction"):
        _freeze(frozen, JobStore(other))
    with frozen.read() as session:  # by another connection
        assert session.scalar(text("SELECT 1")) == 1
    frozen.close()
    other.close()


def _freeze(frozen: Database, other: JobStore) -> None:
    with frozen.write() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
        session.execute(text("SET idle_in_transaction_session_timeout = 100"))
        session.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        assert other.page(Filter(), limit=1, offset=0) == ((), 0)  # once the lock is let go of
        session.execute(text("SELECT 1"))


def test_a_server_that_takes_no_writes_for_now_is_an_error_that_passes(
    fresh_postgresql: Callable[[], str],
) -> None:
    database = Database(fresh_postgresql())
    with database.write() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(OperationalError, match="read-only"):
            session.execute(text("DELETE FROM jobs"))
    database.close()


def test_options_of_the_url_are_kept(fresh_postgresql: Callable[[], str]) -> None:
    url = fresh_postgresql()
    database = Database(f"{url}{'&' if '?' in url else '?'}options=-c%20statement_timeout%3D41s")
    with database.read() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "41s"
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
    database.close()
