"""A disk that is really full, and a bucket that says so: no job is lost, what failed says why, and it goes on after."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
SIZE = 24 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def _ends(server: Any, job: str) -> int:
    text = server.http.get(f"/jobs/{job}/events").text
    return sum(text.count(f'"state": "{state}"') for state in ("succeeded", "failed", "canceled"))


def test_a_job_that_fills_the_disk_fails_and_gives_the_room_back(
    make_services: Make, small_disk: Path
) -> None:
    server = make_services(small_disk / "data")
    started = time.monotonic()
    job = server.submit(seed=10)
    failed = server.wait_for(job, "failed", "succeeded")
    print(
        f"measured: a job that fills the disk, from sending it to its end: {time.monotonic() - started:.2f} s"
    )
    assert (failed["error"]["code"], failed["error"]["retryable"]) == ("storage", True)
    assert "No space left" in failed["error"]["message"]
    assert _ends(server, job) == 1
    server.until(lambda: not any(job in name for name in server.files()), "its files to be gone")
    assert server.wait_for(server.submit(), "succeeded", "failed")["state"] == "succeeded"


def test_uploads_that_do_not_fit_are_answered_507_and_leave_nothing(
    make_services: Make, small_disk: Path
) -> None:
    server = make_services(small_disk / "data")
    large = bytes(SIZE + 2**20)
    before = _used(small_disk)
    for answer in (server.http.put("/uploads/large", content=large), server.post(model=large)):
        assert (answer.status_code, answer.json()["code"]) == (507, "storage"), answer.text
        assert answer.json()["retryable"]
    server.until(lambda: _used(small_disk) < before + 2**19, "the room to be given back")
    assert server.wait_for(server.submit(), "succeeded", "failed")["state"] == "succeeded"


def test_a_disk_that_others_fill_while_a_job_runs(make_services: Make, small_disk: Path, gate: Any) -> None:
    server = make_services(small_disk / "data")
    job = server.submit(seed=9, model=gate.model)
    worker = server.worker(job)
    filler = _fill(small_disk)
    refused = server.post()
    assert (refused.status_code, refused.json()["code"]) == (507, "storage"), refused.text
    assert server.job(job)["id"] == job
    gate.open()
    server.until(lambda: not server.alive(worker), "the job to end where nothing can be written")
    filler.unlink()
    freed = time.monotonic()
    ended = server.wait_for(job, "succeeded", "failed")
    print(f"measured: room on the disk again, to the end of the job: {time.monotonic() - freed:.2f} s")
    assert ended["state"] == "succeeded" or ended["error"]["code"] == "storage"
    assert _ends(server, job) == 1
    assert server.wait_for(server.submit(), "succeeded", "failed")["state"] == "succeeded"


def _used(disk: Path) -> int:
    import os

    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
