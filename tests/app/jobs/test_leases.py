"""Claims happen once, leases end, and a writer that lost its job is refused; on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from sqlalchemy.orm import Session

from app.job import Job
from app.jobs.database import Database
from app.jobs.leases import Leases
from app.jobs.store import JobStore, Submission
from quant_core.spec import RUNNING, STAGES, JobFailure, Progress, QuantizeSpec

LOST = JobFailure(code="worker_lost", message="It is gone.", remedy="Send it again.")


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database, "here", 3600)


def _create(store: JobStore, name: str, **spec: object) -> None:
    store.create(Submission(name, model="m.onnx", data="d.npz", spec=QuantizeSpec.model_validate(spec)))


def _claim(leases: Leases) -> Job:
    job = leases.claim(("auto", "cpu"))
    assert job is not None
    return job


def _state(store: JobStore, name: str = "j") -> str:
    found = store.get(name)
    assert found is not None
    return found.state


def test_every_job_is_claimed_once_and_in_order(store: JobStore, database: Database) -> None:
    names = [f"job{number}" for number in range(30)]
    for name in names:
        _create(store, name)
    services = [Leases(database, f"service{number}", 3600) for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        found = threads.map(lambda number: services[number % 6].claim(("auto", "cpu")), range(48))
        claimed = [job.id for job in found if job]
    assert sorted(claimed) == sorted(names)
    assert services[0].claim(("auto", "cpu")) is None


def test_a_device_takes_what_asks_for_it(store: JobStore, leases: Leases) -> None:
    for device in ("cuda:1", "cpu", "auto"):
        _create(store, f"for {device}", device=device)
    assert [_claim(leases).id, _claim(leases).id] == ["for cpu", "for auto"]
    assert leases.claim(("auto", "cpu")) is None


def test_an_attempt_that_lost_its_job_can_write_nothing(store: JobStore, database: Database) -> None:
    slow, quick = (
        Leases(database, "slow", -1),
        Leases(database, "quick", 3600),
    )  # a lease that has ended at once
    _create(store, "j")
    first = _claim(slow)
    (taken,) = quick.take_over(max_interruptions=9)
    assert (taken.id, taken.state, taken.interruptions) == ("j", "queued", 1)
    second = _claim(quick)
    assert second.attempt == first.attempt + 1
    before = store.get("j"), store.events("j", after=0)
    step = Progress(stage="ingest", fraction=0.5)
    assert not slow.advance(first, [step])
    assert not slow.finish(first, "failed", error=LOST)
    assert not slow.requeue(first)
    assert not slow.keep_checkpoint(first, "sensitivity", "key", 1)
    assert slow.interrupted(first, LOST, 9) is None
    assert slow.renew() == frozenset()
    assert slow.must_stop(first)
    assert (store.get("j"), store.events("j", after=0)) == before
    assert quick.checkpoints(second) == {}
    assert quick.renew() == {("j", 2)}
    assert quick.advance(second, [step])
    assert quick.finish(second, "succeeded")
    assert not quick.finish(second, "failed")
    assert quick.renew() == frozenset()


def test_a_lease_that_is_renewed_keeps_others_away(store: JobStore, database: Database) -> None:
    _create(store, "j")
    _claim(Leases(database, "a", -1))
    a, b = Leases(database, "a", 3600), Leases(database, "b", 3600)
    assert a.renew() == {("j", 1)}
    assert b.take_over(9) == ()
    assert b.take_over(9, dead=["c"]) == ()
    (taken,) = b.take_over(9, dead=["a"])  # known to be dead: no need to wait
    assert taken.id == "j"


def test_lost_jobs_are_taken_over_once(store: JobStore, database: Database) -> None:
    dead = Leases(database, "dead", -1)
    for number in range(12):
        _create(store, f"j{number}")
        _claim(dead)
    services = [Leases(database, f"s{number}", 3600) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        taken = [job.id for jobs in threads.map(lambda s: s.take_over(9), services) for job in jobs]
    assert sorted(taken) == sorted(f"j{number}" for number in range(12))


def test_interruptions_end_in_failure_but_orderly_stops_do_not(store: JobStore, database: Database) -> None:
    leases = Leases(database, "here", -1)
    _create(store, "j")
    for _ in range(5):
        assert leases.requeue(_claim(leases))
    for expected in ("queued", "failed"):
        _claim(leases)
        leases.take_over(max_interruptions=2)
        assert _state(store) == expected
    found = store.get("j")
    assert found is not None
    assert found.error is not None
    assert (found.error.code, found.error.retryable) == ("interrupted", True)


def test_a_process_that_is_lost_again_and_again_ends_in_failure(store: JobStore, leases: Leases) -> None:
    _create(store, "j")
    again = leases.interrupted(_claim(leases), LOST, 2)
    assert again is not None
    assert again.state == "queued"
    assert LOST.message in again.message
    ended = leases.interrupted(_claim(leases), LOST, 2)
    assert ended is not None
    assert (ended.state, ended.error) == ("failed", LOST)


def test_lost_processes_and_lost_services_count_apart(store: JobStore, database: Database) -> None:
    gone, here = Leases(database, "gone", -1), Leases(database, "here", 3600)
    _create(store, "j")
    assert gone.interrupted(_claim(gone), LOST, 2) is not None
    _claim(gone)
    (again,) = here.take_over(max_interruptions=2)
    assert (again.state, again.processes_lost, again.interruptions) == ("queued", 1, 1)
    _claim(gone)
    here.take_over(max_interruptions=2)
    found = store.get("j")
    assert found is not None
    assert found.error is not None
    assert found.error.message == "The service ended 2 times while this job ran."


def test_a_job_canceled_while_its_service_is_away_stays_canceled(store: JobStore, database: Database) -> None:
    _create(store, "j")
    _claim(Leases(database, "gone", -1))
    store.cancel("j")
    Leases(database, "here", 3600).take_over(9)
    assert _state(store) == "canceled"


def test_progress_never_goes_back_and_states_follow_stages(store: JobStore, leases: Leases) -> None:
    _create(store, "j")
    job = _claim(leases)
    steps = [Progress(stage=stage, fraction=fraction) for stage in STAGES for fraction in (0.0, 0.5, 1.0)]
    leases.advance(job, [*steps, Progress(stage="allocation", fraction=0.0)])  # a second plan
    events = store.events("j", after=0)
    told = [event.data["progress"] for event in events if event.kind == "progress"]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    states = [event.data["state"] for event in events if event.kind == "state"]
    assert states == [
        "queued", "validating", "analyzing", "solving", "quantizing", "verifying", "solving",
    ]  # fmt: skip
    assert set(states[1:]) == RUNNING
    assert [event.number for event in events] == list(range(1, len(events) + 1))


def test_the_next_attempt_finds_the_last_checkpoint_of_each_name(store: JobStore, leases: Leases) -> None:
    _create(store, "j")
    first = _claim(leases)
    assert leases.keep_checkpoint(first, "rounding", "j/checkpoint-rounding-1", 5 * 2**32)
    leases.requeue(first)
    second = _claim(leases)
    assert leases.keep_checkpoint(second, "rounding", "j/checkpoint-rounding-2", 5)
    assert leases.keep_checkpoint(second, "sensitivity", "j/checkpoint-sensitivity-2", 5)
    expected = {"rounding": "j/checkpoint-rounding-2", "sensitivity": "j/checkpoint-sensitivity-2"}
    assert leases.checkpoints(second) == expected
    leases.finish(second, "succeeded")
    assert leases.checkpoints(second) == {}


def test_who_has_nothing_to_do_writes_nothing(
    store: JobStore, leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer at a time is all that SQLite has: idle devices ask each second."""
    opened: list[None] = []
    write = database.write

    def counted() -> AbstractContextManager[Session]:
        opened.append(None)
        return write()

    monkeypatch.setattr(database, "write", counted)
    _create(store, "j", device="cuda:1")
    opened.clear()
    assert leases.claim(("auto", "cpu")) is None
    assert leases.renew() == frozenset()
    assert leases.take_over(9) == ()
    assert opened == []
    assert leases.claim(("cuda:1",)) is not None
    assert leases.renew() == {("j", 1)}
    assert len(opened) == 2
