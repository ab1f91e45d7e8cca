"""Several services on one database and one storage."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_APP = Path(__file__).parents[1] / "app"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"faults_{name.replace('/', '_')}", _APP / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


_SERVER, _POSTGRESQL, _STORAGE = _load("conftest"), _load("postgresql"), _load("storage/conftest")

QUICK = {
    "BITWRIGHT_LEASE_SECONDS": "10",  # as long as a busy machine may keep a service from renewing it
    "BITWRIGHT_RENEW_SECONDS": "0.5",
    "BITWRIGHT_MAX_INTERRUPTIONS": "3",
}
gate = _SERVER.gate

_RAY = _load("ray_cluster")

s3_endpoint = _STORAGE.s3_endpoint
make_bucket = _STORAGE.make_bucket
bucket_url = _STORAGE.bucket_url


@pytest.fixture(scope="session")
def fresh_postgresql() -> Iterator[Callable[[], str]]:
    with _POSTGRESQL.postgresql() as fresh:
        yield fresh


@pytest.fixture
def own_postgresql() -> Iterator[Any]:
    """A PostgreSQL that a test may end and start again."""
    with _POSTGRESQL.postgresql_server() as server:
        yield server


@pytest.fixture
def make_services(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start services that share their files, and the database that their environment names; all are killed."""
    started: list[Any] = []

    def start(folder: Path | None = None, **environment: str) -> Any:
        server = _SERVER.Server(folder or tmp_path / "data", {**QUICK, **environment})
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
        server = _SERVER.Server(tmp_path / "data", {**QUICK, **database, **environment})
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
        server = _SERVER.Server(tmp_path / f"data{len(started)}", environment)
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
    with _RAY.ray_cluster(_APP / "fakes") as cluster:
        yield cluster


@pytest.fixture
def start_on_ray(start_service: Callable[..., Any], ray_cluster: Any) -> Callable[..., Any]:
    """Start services that share their jobs, their files, and the cluster."""
    environment = {
        "BITWRIGHT_EXECUTOR": "ray",
        "BITWRIGHT_RAY_TOKEN": _RAY.TOKEN,
        "BITWRIGHT_LEASE_SECONDS": "10",
        "BITWRIGHT_RENEW_SECONDS": "1",
        "AWS_SECRET_ACCESS_KEY": "not for the cluster",
    }
    return lambda **more: start_service(
        **{**environment, "BITWRIGHT_RAY_ADDRESS": ray_cluster.address, **more}
    )
