"""Several services on one database and one storage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.postgresql import postgresql, postgresql_server
from tests.app.ray_cluster import TOKEN
from tests.app.ray_cluster import ray_cluster as started_cluster
from tests.app.service import FAKES, gate, services
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
    """Start services that share their files, and the database that their environment names."""
    with services() as start:

        def make(folder: Path | None = None, **environment: str) -> Any:
            return start(folder or tmp_path / "data", {**QUICK, **environment})

        yield make


@pytest.fixture(params=["sqlite", "postgresql"])
def start_service(request: pytest.FixtureRequest, make_services: Callable[..., Any]) -> Callable[..., Any]:
    """Start services that share their jobs and their files."""
    database = {}
    if request.param == "postgresql":
        fresh: Callable[[], str] = request.getfixturevalue("fresh_postgresql")
        database["BITWRIGHT_DATABASE_URL"] = fresh()
    return lambda **environment: make_services(**database | environment)


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start single services, each on a folder of its own."""
    numbers = itertools.count()
    with services() as start:
        yield lambda **environment: start(tmp_path / f"data{next(numbers)}", environment)


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
