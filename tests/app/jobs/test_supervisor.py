"""The supervisor when what it leans on fails for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.executors.protocol import Outcome, Task, Ticket, Update
from app.job import Job
from app.jobs.database import Database, sqlite_url
from app.jobs.leases import Leases
from app.jobs.store import JobStore, Submission
from app.jobs.supervisor import Supervisor
from app.storage import Storage, open_storage
from quant_core.spec import Progress, QuantizeSpec


class _Ticket:
    def __init__(self, task: Task) -> None:
        self.task = task


class _InstantExecutor:
    """Has every task done at the first look."""

    devices = ("cpu",)
    fault = None

    def start(self) -> None:
        pass

    def capacity(self, busy: int) -> int:
        return 1 - busy

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
        super().__init__(database, "here", 3600)
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


def _queue(store: JobStore, storage: Storage, tmp_path: Path, job: str = "j") -> None:
    upload = tmp_path / f"upload-{job}"
    for name, content in (("model/m.onnx", b"model"), ("data/d.npz", b"data")):
        (upload / name).parent.mkdir(parents=True)
        (upload / name).write_bytes(content)
    storage.publish(upload, f"{job}/input")
    store.create(Submission(job, model="m.onnx", data="d.npz", spec=QuantizeSpec()))


def test_a_job_ends_although_every_write_fails_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.supervisor._IDLE_SECONDS", 0.01)
    leases, store, storage = _FailingLeases(database), JobStore(database), open_storage("", tmp_path)
    _queue(store, storage, tmp_path)
    supervisor = Supervisor(leases, storage, _InstantExecutor(), tmp_path / "scratch")
    supervisor.start()
    _until(lambda: (job := store.get("j")) and job.ended)
    supervisor.stop()
    assert leases.failed == {"claim", "advance", "finish"}
    job = store.get("j")
    assert job is not None
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert store.artifact("j", "model.onnx") == "j/output-1/model.onnx"
    found = storage.find("j/output-1/model.onnx")
    assert found is not None
    assert found.read_bytes() == b"small"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_next_job_starts_as_soon_as_one_has_ended(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.supervisor._IDLE_SECONDS", 3600.0)
    leases, store, storage = Leases(database, "here", 3600), JobStore(database), open_storage("", tmp_path)
    for job in ("j", "k"):
        _queue(store, storage, tmp_path, job)
    ended: list[str] = []
    supervisor = Supervisor(leases, storage, _InstantExecutor(), tmp_path / "scratch", on_end=ended.append)
    supervisor.start()
    _until(lambda: ended == ["j", "k"])
    supervisor.stop()


class _EndlessExecutor(_InstantExecutor):
    """Has no task end before it is canceled."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.canceled: list[int] = []

    def submit(self, task: Task, device: str) -> _Ticket:
        self.started.append(task.attempt)
        return _Ticket(task)

    def poll(self, ticket: Ticket) -> Update:
        ended = ticket.task.attempt in self.canceled
        return Update((), Outcome(state="canceled") if ended else None)

    def cancel(self, ticket: Ticket) -> None:
        self.canceled.append(ticket.task.attempt)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_service_that_cannot_renew_its_leases_stops_its_jobs_and_does_not_end_them(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.supervisor._IDLE_SECONDS", 0.01)
    leases, store, storage = Leases(database, "here", 3600), JobStore(database), open_storage("", tmp_path)
    _queue(store, storage, tmp_path)
    executor, silent = _EndlessExecutor(), [False]
    supervisor = Supervisor(leases, storage, executor, tmp_path / "scratch", silent=lambda: silent[0])
    supervisor.start()
    _until(lambda: executor.started == [1])
    silent[0] = True
    _until(lambda: executor.canceled)
    silent[0] = False
    _until(lambda: executor.started[-1] > 1)  # nobody else took it, and nobody had canceled it
    assert store.get("j").state == "validating"  # type: ignore[union-attr]
    store.cancel("j")
    _until(lambda: store.get("j").state == "canceled")  # type: ignore[union-attr]
    supervisor.stop()


def test_a_job_whose_files_cannot_be_fetched_is_tried_again_and_then_fails(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.supervisor._IDLE_SECONDS", 0.01)
    leases, store, storage = Leases(database, "here", 3600), JobStore(database), open_storage("", tmp_path)
    _queue(store, storage, tmp_path)
    storage.remove("j")
    ended: list[str] = []
    supervisor = Supervisor(leases, storage, _EndlessExecutor(), tmp_path / "scratch", on_end=ended.append)
    supervisor.start()
    _until(lambda: ended)
    supervisor.stop()
    job = store.get("j")
    assert job is not None
    assert (job.state, job.attempt, ended) == ("failed", 2, ["j"])
    assert job.error is not None
    assert job.error.retryable
