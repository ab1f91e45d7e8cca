"""The supervisor when what it leans on fails for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.executors.protocol import Outcome, Task, Ticket, Update
from app.jobs.database import Database, sqlite_url
from app.jobs.job import Job
from app.jobs.leases import Leases
from app.jobs.store import JobStore, Submission
from app.jobs.supervisor import Supervisor
from app.storage import open_storage
from quant_core.spec import Progress, QuantizeSpec


class _Ticket:
    def __init__(self, task: Task) -> None:
        self.task = task


class _InstantExecutor:
    """Has every task done at the first look."""

    devices = ("cpu",)

    def submit(self, task: Task, device: str) -> _Ticket:
        assert device == "cpu"
        assert task.model.read_bytes() == b"model"
        task.out.mkdir()
        (task.out / "model.onnx").write_bytes(b"small")
        return _Ticket(task)

    def poll(self, ticket: Ticket) -> Update:
        return Update((Progress(stage="ingest", fraction=1.0),), Outcome(state="succeeded"))

    def cancel(self, ticket: Ticket) -> None:
        raise AssertionError("nothing runs long enough")

    def close(self) -> None:
        pass


class _FailingLeases(Leases):
    """Fails the first time at each kind of write, as a full disk would."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "here", 60)
        self.failed: set[str] = set()

    def _once(self, name: str) -> None:
        if name not in self.failed:
            self.failed.add(name)
            raise OSError(28, "No space left on device")

    def claim(self, *arguments: Any) -> Job | None:
        self._once("claim")
        return super().claim(*arguments)

    def advance(self, *arguments: Any) -> bool:
        self._once("advance")
        return super().advance(*arguments)

    def finish(self, *arguments: Any, **named: Any) -> bool:
        self._once("finish")
        return super().finish(*arguments, **named)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "jobs.sqlite"))
    yield made
    made.close()


def test_a_job_ends_although_every_write_fails_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.supervisor._IDLE_SECONDS", 0.01)
    leases, store, storage = _FailingLeases(database), JobStore(database), open_storage("", tmp_path)
    upload = tmp_path / "upload"
    for name, content in (("model/m.onnx", b"model"), ("data/d.npz", b"data")):
        (upload / name).parent.mkdir(parents=True)
        (upload / name).write_bytes(content)
    storage.publish(upload, "j/input")
    store.create(Submission("j", model="m.onnx", data="d.npz", spec=QuantizeSpec()))
    supervisor = Supervisor(leases, storage, _InstantExecutor(), tmp_path / "scratch")
    supervisor.start()
    deadline = time.monotonic() + 10
    while (job := store.get("j")) and not job.ended and time.monotonic() < deadline:
        time.sleep(0.01)
    supervisor.stop()
    assert leases.failed == {"claim", "advance", "finish"}
    assert job is not None
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert store.artifact("j", "model.onnx") == "j/output-1/model.onnx"
    found = storage.find("j/output-1/model.onnx")
    assert found is not None
    assert found.read_bytes() == b"small"
    assert list((tmp_path / "scratch").iterdir()) == []
