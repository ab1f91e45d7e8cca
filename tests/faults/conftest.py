"""Several services on one database and one storage."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.postgresql import postgresql, postgresql_server
from tests.app.ray_cluster import TOKEN
from tests.app.ray_cluster import ray_cluster as started_cluster
from tests.app.service import FAKES, Server, gate
from tests.app.storage.conftest import bucket_url, make_bucket, s3_endpoint

__all__ = ["bucket_url", "gate", "make_bucket", "s3_endpoint"]

QUICK = {
    "BITWRIGHT_LEASE_SECONDS": "10",  # as long as a busy machine may keep a service from renewing it
    "BITWRIGHT_RENEW_SECONDS": "0.5",
    "BITWRIGHT_MAX_INTERRUPTIONS": "3",
}


@pytest.fixture(scope="session")
def fresh_postgresql() -> Iterator[Callable[[], str]]:
    with postgresql() as fresh:
        yield fresh


@pytest.fixture
def own_postgresql() -> Iterator[Any]:
    """A PostgreSQL that a test may end and start again."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def make_services(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start services that share their files, and the database that their environment names; all are killed."""
    started: list[Any] = []

    def start(folder: Path | None = None, **environment: str) -> Any:
        server = Server(folder or tmp_path / "data", {**QUICK, **environment})
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.end()


@pytest.fixture(params=["sqlite", "postgresql"])
def start_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start services that share their jobs and their files; all are killed in the end."""
    database = {}
    if request.param == "postgresql":
        fresh: Callable[[], str] = request.getfixturevalue("fresh_postgresql")
        database["BITWRIGHT_DATABASE_URL"] = fresh()
    started: list[Any] = []

    def start(**environment: str) -> Any:
        server = Server(tmp_path / "data", {**QUICK, **database, **environment})
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)
        server.end()


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start single services; all are killed in the end."""
    started: list[Any] = []

    def make(**environment: str) -> Any:
        server = Server(tmp_path / f"data{len(started)}", environment)
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.end()


@pytest.fixture
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster without nodes; all that are started are killed in the end."""
    pytest.importorskip("ray", reason="needs Ray: pip install -c constraints.txt -e '.[cluster]'")
    with started_cluster(FAKES) as cluster:
        yield cluster


@pytest.fixture
def start_on_ray(start_service: Callable[..., Any], ray_cluster: Any) -> Callable[..., Any]:
    """Start services that share their jobs, their files, and the cluster."""
    environment = {
        "BITWRIGHT_EXECUTOR": "ray",
        "BITWRIGHT_RAY_TOKEN": TOKEN,
        "BITWRIGHT_LEASE_SECONDS": "10",
        "BITWRIGHT_RENEW_SECONDS": "1",
        "AWS_SECRET_ACCESS_KEY": "not for the cluster",
    }
    return lambda **more: start_service(
        **{**environment, "BITWRIGHT_RAY_ADDRESS": ray_cluster.address, **more}
    )
