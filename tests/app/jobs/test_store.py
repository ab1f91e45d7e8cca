"""What requests ask of the job table, on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from app.job import Job, now
from app.jobs.database import Database
from app.jobs.leases import Leases
from app.jobs.store import Filter, JobStore, Submission, TooManyJobsError
from quant_core.spec import AnalyzeSpec, QuantizeSpec


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def _create(store: JobStore, name: str, **more: object) -> Job:
    return store.create(
        Submission(**{"id": name, "model": "m.onnx", "data": "d.npz", "spec": QuantizeSpec(), **more})  # type: ignore[arg-type]
    )


def test_a_job_is_found_again_as_it_was_sent(store: JobStore) -> None:
    spec = AnalyzeSpec(seed=3, spectrum=True)
    sent = _create(store, "j", spec=spec, tags=("a", "b.c"), owner="key")
    assert store.get("j") == sent
    assert (sent.spec, sent.kind, sent.tags, sent.owner, sent.state) == (
        spec, "analyze", ("a", "b.c"), "key", "queued",
    )  # fmt: skip
    assert sent.created.tzinfo is not None
    assert store.get("other") is None


def test_jobs_are_listed_by_owner_state_and_tags(store: JobStore) -> None:
    _create(store, "1", owner="a", tags=("x", "y"))
    _create(store, "2", owner="b", tags=("x",))
    _create(store, "3", owner="a", tags=("xy",))
    _create(store, "4", owner="a", tags=("x_",))
    store.cancel("3")

    def ids(**which: object) -> list[str]:
        jobs, total = store.page(Filter(**which), limit=10, offset=0)  # type: ignore[arg-type]
        assert total == len(jobs)
        return [job.id for job in jobs]

    assert ids() == ["4", "3", "2", "1"]
    assert ids(owner="a") == ["4", "3", "1"]
    assert ids(tags=("x",)) == ["2", "1"]
    assert ids(tags=("x", "y")) == ["1"]
    assert ids(tags=("x_",)) == ["4"]  # no wildcard
    assert ids(tags=("%",)) == []
    assert ids(states=("canceled", "failed")) == ["3"]
    assert ids(words=("XY",)) == ["3"]
    assert ids(words=("M.onnx", "x"), owner="b") == ["2"]
    assert ids(words=("d.npz", "_")) == ["4"]  # no wildcard
    assert ids(words=("m.onnx", "nothing")) == []
    _create(store, "5", model="Модель.onnx")
    assert ids(words=("мОДЕЛЬ",)) == ["5"]
    store.cancel("5")
    store.delete("5")
    jobs, total = store.page(Filter(owner="a"), limit=1, offset=1)
    assert ([job.id for job in jobs], total) == (["3"], 3)
    assert store.counts() == {"queued": 3, "canceled": 1}


def test_an_idempotency_key_queues_once_also_when_many_send_it_together(store: JobStore) -> None:
    def send(number: int) -> str:
        return _create(store, f"j{number}", owner="a", idempotency_key="k", fingerprint=f"f{number}").id

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(send, range(16)))
    assert len(answers) == 1
    assert store.page(Filter(), limit=1, offset=0)[1] == 1
    found = store.repeated("a", "k")
    assert found is not None
    assert found[0].id in answers
    assert found[1] == found[0].id.replace("j", "f")
    assert _create(store, "other", owner="b", idempotency_key="k").id == "other"
    assert store.repeated("c", "k") is None


def test_an_owner_has_only_so_many_jobs_at_once(store: JobStore) -> None:
    for name in ("1", "2"):
        _create(store, name, owner="a", active_limit=2)
    with pytest.raises(TooManyJobsError):
        _create(store, "3", owner="a", active_limit=2)
    _create(store, "4", owner="b", active_limit=2)
    store.cancel("1")
    _create(store, "5", owner="a", active_limit=2)


def test_who_follows_a_job_is_told_when_nothing_more_comes(store: JobStore) -> None:
    assert store.news("j", after=0) == ((), True)
    _create(store, "j")
    (queued,), ended = store.news("j", after=0)
    assert (queued.number, queued.data["state"], ended) == (1, "queued", False)
    assert store.news("j", after=1) == ((), False)
    store.cancel("j")
    (canceled,), ended = store.news("j", after=1)
    assert (canceled.number, canceled.data["state"], ended) == (2, "canceled", True)
    assert store.news("j", after=0, limit=1) == ((queued,), True)
    assert store.news("j", after=2) == ((), True)


def test_a_deleted_job_takes_its_events_along(store: JobStore) -> None:
    _create(store, "j")
    assert not store.delete("j")  # it waits
    store.cancel("j")
    assert store.delete("j")
    assert store.get("j") is None
    assert store.events("j", after=0) == ()
    assert not store.delete("j")


def test_old_results_expire_and_others_do_not(store: JobStore, database: Database) -> None:
    leases = Leases(database, "here", 3600)
    for name in ("done", "failed", "waiting"):
        _create(store, name)
        if name != "waiting":
            job = leases.claim(("auto",))
            assert job is not None
            artifacts = [("model.onnx", "done/output-1/model.onnx", 3 * 2**32)]
            leases.finish(job, "succeeded" if name == "done" else "failed", artifacts=artifacts)
    assert store.artifact("done", "model.onnx") == "done/output-1/model.onnx"
    assert store.artifact("done", "other") is None
    assert store.ids_with_files() == {"done", "waiting"}
    assert store.expire(now() - timedelta(hours=1)) == ()
    assert store.expire(now() + timedelta(hours=1)) == ("done",)
    found = store.get("done")
    assert found is not None
    assert (found.state, found.ended) == ("expired", True)
    assert store.events("done", after=0)[-1].data["state"] == "expired"
    assert store.ids_with_files() == {"waiting"}
    assert store.delete("done")
