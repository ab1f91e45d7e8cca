"""The job table: claims happen once, and a writer that lost its job is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.jobs.database import Database, WrongSchemaError
from app.jobs.job import JobError
from app.jobs.store import JobStore
from quant_core.spec import STAGES, Progress, QuantizeSpec


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    database = Database(tmp_path / "jobs.sqlite")
    yield JobStore(database)
    database.close()


def _create(store: JobStore, name: str, **spec: object) -> None:
    store.create(name, model_name="m.onnx", data_name="d.npz", spec=QuantizeSpec.model_validate(spec))


def test_every_job_is_claimed_once_and_in_order(store: JobStore) -> None:
    names = [f"job{number}" for number in range(30)]
    for name in names:
        _create(store, name)
    with ThreadPoolExecutor(6) as threads:
        claimed = [job.id for job in threads.map(lambda _: store.claim(("auto", "cpu")), range(40)) if job]
    assert sorted(claimed) == sorted(names)
    assert store.claim(("auto", "cpu")) is None


def test_a_device_takes_what_asks_for_it(store: JobStore) -> None:
    for device in ("cuda:1", "cpu", "auto"):
        _create(store, f"for {device}", device=device)
    first, second = store.claim(("auto", "cpu")), store.claim(("auto", "cpu"))
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("for cpu", "for auto")
    assert store.claim(("auto", "cpu")) is None


def test_an_attempt_that_lost_its_job_can_write_nothing(store: JobStore) -> None:
    _create(store, "j")
    first = store.claim(("auto",))
    assert first is not None
    store.recover(max_interruptions=9)  # as a restart of the service does
    second = store.claim(("auto",))
    assert second is not None
    assert second.attempt == first.attempt + 1
    before = store.get("j"), store.events("j", after=0)
    step = Progress(stage="ingest", fraction=0.5)
    assert not store.advance(first, [step])
    assert not store.finish(first, "failed", error=JobError(code="c", message="m", remedy="r"))
    assert not store.requeue(first)
    assert store.cancel_requested(first)
    assert (store.get("j"), store.events("j", after=0)) == before
    assert store.advance(second, [step])
    assert store.finish(second, "succeeded")
    assert not store.finish(second, "failed")


def test_interruptions_end_in_failure_but_orderly_stops_do_not(store: JobStore) -> None:
    _create(store, "j")
    for _ in range(5):
        job = store.claim(("auto",))
        assert job is not None
        assert store.requeue(job)
    for expected in ("queued", "failed"):
        assert store.claim(("auto",)) is not None
        store.recover(max_interruptions=2)
        found = store.get("j")
        assert found is not None
        assert found.state == expected
    assert found.error is not None
    assert found.error.code == "interrupted"
    assert "j" not in store.ids_with_files()


def test_a_job_canceled_while_the_service_is_away_stays_canceled(store: JobStore) -> None:
    _create(store, "j")
    store.claim(("auto",))
    store.cancel("j")
    store.recover(max_interruptions=9)
    found = store.get("j")
    assert found is not None
    assert found.state == "canceled"


def test_progress_never_goes_back(store: JobStore) -> None:
    _create(store, "j")
    job = store.claim(("auto",))
    assert job is not None
    steps = [Progress(stage=stage, fraction=fraction) for stage in STAGES for fraction in (0.0, 0.5, 1.0)]
    store.advance(job, [*steps, Progress(stage="allocation", fraction=0.0)])  # a second plan
    told = [event.data["progress"] for event in store.events("j", after=0) if event.kind == "progress"]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    Database(tmp_path / "x.sqlite").close()
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(WrongSchemaError, match="version 99"):
        Database(tmp_path / "x.sqlite")


def test_a_deleted_job_takes_its_events_along(store: JobStore) -> None:
    _create(store, "j")
    assert not store.delete("j")  # it waits
    store.cancel("j")
    assert store.delete("j")
    assert store.get("j") is None
    assert store.events("j", after=0) == ()
    assert not store.delete("j")
