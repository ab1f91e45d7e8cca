"""A bucket of a real S3 server on loopback, and a folder: what holds for one must hold for the other."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.storage.local import LocalObjects
from app.storage.objects import Objects
from app.storage.s3 import S3Objects
from app.storage.storage import Storage

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto, as a process of its own that says which port it took."""
    code = (
        "import sys; from moto.server import ThreadedMotoServer as S; s = S('127.0.0.1', 0, verbose=False); "
        "s.start(); print(s._server.port, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | _CREDENTIALS,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield endpoint
        process.stdin.close()
        process.wait()


@pytest.fixture(scope="session")
def make_bucket(s3_endpoint: str) -> Callable[[], str]:
    """Make fresh buckets and tell their addresses."""

    def make() -> str:
        name = f"b{uuid.uuid4().hex}"
        asked = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
        urllib.request.urlopen(asked, timeout=900).close()
        return f"s3://{name}/some/where?endpoint={s3_endpoint}&region=us-east-1"

    return make


@pytest.fixture(scope="session")
def s3_credentials() -> dict[str, str]:
    """What the environment of whoever reads a bucket holds."""
    return _CREDENTIALS


@pytest.fixture
def bucket_url(make_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fresh bucket."""
    for name, value in _CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return make_bucket()


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """One empty place after the other."""
    if request.param == "local":
        return LocalObjects(tmp_path / "store")
    url = request.getfixturevalue("bucket_url")
    bucket, _, rest = url.removeprefix("s3://").partition("/")
    endpoint = rest.partition("endpoint=")[2].partition("&")[0]
    return S3Objects(bucket, "some/where", {"endpoint": endpoint, "region": "us-east-1"}, endpoint)


@pytest.fixture
def storage(objects: Objects, tmp_path: Path) -> Storage:
    """A storage over each."""
    return Storage(objects, tmp_path / "cache")
