"""A database of each kind for tests that must hold on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.jobs.database import Database, sqlite_url
from tests.app.postgresql import postgresql


@pytest.fixture(scope="session")
def fresh_postgresql() -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database and tells its URL."""
    with postgresql() as fresh:
        yield fresh


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "jobs.sqlite")
    fresh: Callable[[], str] = request.getfixturevalue("fresh_postgresql")
    return fresh()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database of either kind."""
    made = Database(database_url)
    yield made
    made.close()
