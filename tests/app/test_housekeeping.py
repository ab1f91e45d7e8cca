"""What is no longer needed goes: results after their time, uploads nobody uses; what is needed stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.housekeeping import collect
from app.jobs.database import Database, sqlite_url
from app.jobs.store import JobStore, Submission
from app.storage import Storage, Uploads, file_digest, open_storage
from app.storage import storage as storage_module
from quant_core.spec import QuantizeSpec
from tests.app.storage.kept_folders import jobs_with_folders


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage("", tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = Database(sqlite_url(tmp_path / "bitwright.sqlite"))
    yield JobStore(made)
    made.close()


def _upload(uploads: Uploads, name: str, content: bytes) -> str:
    file = uploads.partial("me", name)
    file.write_bytes(content)
    return uploads.complete("me", name, file_digest(file)).sha256


def _input(storage: Storage, folder: Path, job: str) -> None:
    folder.mkdir()
    (folder / "model").write_bytes(job.encode())
    storage.publish(folder, f"{job}/input")


def test_uploads_are_forgotten_after_their_time_and_kept_while_they_are_used(
    storage: Storage, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    for name, lifetime in (("old", timedelta(seconds=-1)), ("new", timedelta(hours=1))):
        _upload(Uploads(storage, tmp_path / "uploads", lifetime), name, name.encode())
    uploads = Uploads(storage, tmp_path / "uploads", timedelta(hours=1))
    uploads.partial("me", "begun").write_bytes(b"half")
    abandoned = uploads.partial("me", "abandoned")
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    assert uploads.find("me", "old") is None
    assert uploads.find("you", "new") is None
    done = collect(store, storage, uploads, 0.0)
    assert (done.jobs, done.contents, done.bytes) == (0, 1, 3)
    assert uploads.take("me", "new", tmp_path / "copy") is not None
    assert (tmp_path / "copy").read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "uploads" / "me").iterdir()) == ["begun"]


def test_files_of_jobs_that_are_gone_go_and_those_of_others_stay(
    storage: Storage, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(storage, tmp_path / "uploads", timedelta(hours=1))
    for job in ("gone", "waits"):
        _input(storage, tmp_path / job, job)
    store.create(Submission("waits", model="m", data="d", spec=QuantizeSpec()))
    collect(store, storage, uploads, 0.0)
    assert jobs_with_folders(storage) == {"gone", "waits"}  # it could be about to be queued
    monkeypatch.setattr(storage_module, "GRACE", timedelta(seconds=-2))
    assert collect(store, storage, uploads, 0.0).contents == 1
    assert jobs_with_folders(storage) == {"waits"}


def test_an_operator_collects_by_command(storage: Storage, store: JobStore, tmp_path: Path) -> None:
    assert not store.ids_with_files()  # a service has worked here
    _upload(Uploads(storage, tmp_path / "uploads", timedelta(seconds=-1)), "old", b"content")
    (content,) = (path for path in (tmp_path / "store" / "contents").rglob("*") if path.is_file())
    os.utime(content, (0, 0))
    command = [sys.executable, "-m", "bitwright", "admin", "gc", "--data-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "0 results expired, 1 files of 7 bytes removed\n"
    assert not content.exists()
