"""Files that go past the service, to a bucket of a real S3 server on loopback and from it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.admin import create_key
from app.settings import Settings
from app.storage import DigestError, Uploads, open_storage
from app.storage.direct import DirectUploads
from bitwright import AsyncClient, Client
from bitwright.operations import upload as upload_module

CONTENT = b"\x08\x0a" + os.urandom(200_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def uploads(bucket_url: str, s3_endpoint: str, tmp_path: Path) -> Uploads:
    """Uploads to a bucket in parts of 64 KiB."""
    made = Uploads(open_storage(bucket_url, tmp_path, s3_endpoint), tmp_path / "uploads", timedelta(hours=1))
    made.direct = DirectUploads(made._storage, part_bytes=65536)
    return made


def _send(uploads: Uploads, content: bytes, name: str, *, size: int | None = None) -> None:
    while parts := uploads.direct.missing("me", name, size or len(content)):
        for part in parts:
            piece = content[part.offset : part.offset + part.bytes]
            assert httpx.put(part.url, content=piece, trust_env=False).is_success


def test_parts_make_a_content_that_is_checked(uploads: Uploads, tmp_path: Path) -> None:
    assert [part.bytes for part in uploads.direct.missing("me", "x", 200_002)] == [65536, 65536, 65536, 3394]
    assert uploads.complete_direct("me", "x", len(CONTENT), DIGEST) is None  # nothing was sent
    _send(uploads, CONTENT, "x")
    assert uploads.used("me", besides="other") == len(CONTENT)
    assert uploads.used("me", besides="x") == 0
    done = uploads.complete_direct("me", "x", len(CONTENT), DIGEST)
    assert done is not None
    assert (done.sha256, done.bytes) == (DIGEST, len(CONTENT))
    assert uploads.take("me", "x", tmp_path / "x") == uploads.find("me", "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert uploads.direct.used("me", besides="") == 0  # the parts are gone
    _send(uploads, CONTENT, "y")  # the same once more: read, and kept once
    assert uploads.complete_direct("me", "y", len(CONTENT), DIGEST) is not None
    assert len(tuple(uploads._storage.objects.list("contents/"))) == 1


def test_a_large_file_is_asked_for_a_few_parts_at_a_time(uploads: Uploads) -> None:
    parts = uploads.direct.missing("me", "x", 40 * 65536)
    assert [part.number for part in parts] == list(range(16))
    assert len({part.url for part in parts}) == 16


def test_another_content_is_refused_and_leaves_nothing(uploads: Uploads) -> None:
    _send(uploads, CONTENT, "x")
    with pytest.raises(DigestError, match=DIGEST):
        uploads.complete_direct("me", "x", len(CONTENT), "0" * 64)
    assert list(uploads._storage.objects.list("")) == []
    _send(uploads, CONTENT, "z")
    known = uploads.complete_direct("me", "z", len(CONTENT), DIGEST)
    assert known is not None
    _send(uploads, CONTENT[::-1], "x")  # who names a digest that is here must have the content all the same
    with pytest.raises(DigestError):
        uploads.complete_direct("me", "x", len(CONTENT), DIGEST)
    assert uploads.find("me", "x") is None


def test_a_part_of_another_size_is_asked_for_again(uploads: Uploads) -> None:
    _send(uploads, CONTENT, "x")
    (url,) = uploads._storage.objects.ways_in([f"direct/me/x/{len(CONTENT)}/00001"]) or ()
    assert httpx.put(url, content=b"short", trust_env=False).is_success
    assert [part.number for part in uploads.direct.missing("me", "x", len(CONTENT))] == [1]
    assert uploads.complete_direct("me", "x", len(CONTENT), DIGEST) is None


def test_parts_that_nobody_completes_are_swept(uploads: Uploads) -> None:
    _send(uploads, CONTENT, "x")
    uploads.sweep()
    assert uploads.direct.used("me", besides="") == len(CONTENT)
    uploads.direct.sweep(timedelta(seconds=-5))
    assert uploads.direct.used("me", besides="") == 0


@pytest.fixture(scope="module")
def on_bucket(
    make_server: Callable[..., Any],
    make_bucket: Callable[[], str],
    s3_endpoint: str,
    s3_credentials: dict[str, str],
) -> Iterator[Any]:
    """A service on a bucket that clients reach; what its users sent it keeps apart."""
    running = make_server(
        BITWRIGHT_STORAGE_URL=make_bucket(),
        BITWRIGHT_STORAGE_PUBLIC_ENDPOINT=s3_endpoint,
        BITWRIGHT_UPLOAD_QUOTA="300000",
        BITWRIGHT_KEYS="on",
        **s3_credentials,
    )
    yield running
    running.stop()


def _key(server: Any, name: str) -> str:
    return create_key(Settings(data_dir=server.folder), name, ("read", "write"), 600, 9)[1]


def test_the_client_writes_to_the_bucket_and_reads_from_it(
    on_bucket: Any, tmp_path: Path, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitwright.operations.submit.LARGE", 100_000)
    seen: list[httpx.Request] = []
    monkeypatch.setattr(
        "bitwright.connection.httpx.Client.send", _noting(seen, httpx.Client.send), raising=True
    )
    model = tmp_path / "m.onnx"
    model.write_bytes(CONTENT)
    with Client(on_bucket.url, api_key=_key(on_bucket, "Ada")) as client:
        job = client.quantize(model, data=sample_file, size=0.5).wait()
        out = job.download(tmp_path / "out")
        assert (out / "model.onnx").read_bytes() == CONTENT[::-1]
        again = client.quantize(model, data=sample_file, size=0.4)  # the service has it
        assert again.id != job.id
    sent = [request for request in seen if request.method == "PUT"]
    assert [request.url.port for request in sent] == [
        int(on_bucket.environment["BITWRIGHT_STORAGE_PUBLIC_ENDPOINT"].rpartition(":")[2])
    ]
    assert all("Authorization" not in request.headers for request in sent)


def _noting(seen: list[httpx.Request], send: Callable[..., Any]) -> Callable[..., Any]:
    def noting(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        seen.append(request)
        return send(self, request, **options)

    return noting


def test_the_other_client_does_the_same(on_bucket: Any, tmp_path: Path, sample_file: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(CONTENT)
    key = _key(on_bucket, "Bob")

    async def sent() -> str:
        async with AsyncClient(on_bucket.url, api_key=key) as client:
            return await client._connection.run(upload_module.upload(model, 3))

    assert asyncio.run(sent()) == DIGEST
    view = httpx.get(
        f"{on_bucket.url}/uploads/{DIGEST}", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ).json()
    assert (view["complete"], view["bytes"]) == (True, len(CONTENT))


def test_what_is_wrong_with_parts_is_told(on_bucket: Any, server: Any) -> None:
    headers = {"Authorization": f"Bearer {_key(on_bucket, 'Eve')}"}

    def post(address: str, **told: Any) -> tuple[int, str]:
        answer = on_bucket.http.post(f"/uploads/{address}", json=told, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    assert post("x/parts", bytes=300_001) == (413, "quota")
    assert post("x/parts", bytes=2**40) == (413, "too_large")
    assert post("x/complete", bytes=10, sha256="0" * 64) == (409, "parts_missing")
    assert post(f"{DIGEST}/complete", bytes=10, sha256="0" * 64) == (400, "digest")
    assert post("x/parts", bytes=0) == (422, "request")
    local = server.http.post("/uploads/x/parts", json={"bytes": 10})
    assert (local.status_code, local.json()["code"]) == (409, "not_direct")
