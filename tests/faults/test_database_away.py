"""The database goes away for a while: jobs go on or start again, each ends once, and requests are told to come back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
LEASE = 10.0
LONG = {"BITWRIGHT_LEASE_SECONDS": "3600"}


def _states(server: Any, job: str) -> list[dict[str, Any]]:
    import json

    lines = server.http.get(f"/jobs/{job}/events").text.splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    return [event for event in events if "state" in event]


def _ends(server: Any, job: str) -> int:
    return sum(event["state"] in {"succeeded", "failed", "canceled"} for event in _states(server, job))


def _refused(server: Any, job: str) -> None:
    for answer in (server.http.get(f"/jobs/{job}"), server.post()):
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "database"
        assert answer.json()["retryable"]
        assert int(answer.headers["Retry-After"]) > 0
    assert server.http.get("/readyz").status_code == 503
    health = server.http.get("/healthz")  # the process is well: nobody need end it
    assert health.is_success
    assert health.json()["queued"] is None


def test_away_for_less_than_a_lease(make_services: Make, own_postgresql: Any, gate: Any) -> None:
    server = make_services(BITWRIGHT_DATABASE_URL=own_postgresql.fresh(), **LONG)
    job = server.submit(seed=9, model=gate.model)
    worker = server.worker(job)
    own_postgresql.go()
    _refused(server, job)
    assert server.alive(worker)
    own_postgresql.come_back()
    back = time.monotonic()
    server.until(lambda: server.http.get("/readyz").is_success, "the service to be ready")
    print(f"measured: database back, to the first request that is served: {time.monotonic() - back:.2f} s")
    gate.open()
    assert server.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert server.job(job)["attempt"] == 1
    assert _ends(server, job) == 1


def test_what_a_worker_said_meanwhile_is_written_down_later(
    make_services: Make, own_postgresql: Any, gate: Any
) -> None:
    server = make_services(BITWRIGHT_DATABASE_URL=own_postgresql.fresh(), **LONG)
    job = server.submit(seed=9, model=gate.model)
    worker = server.worker(job)
    own_postgresql.go()
    gate.open()
    server.until(lambda: not server.alive(worker), "the job to end while nobody can be told")
    own_postgresql.come_back()
    assert server.wait_for(job, "succeeded", "failed")["attempt"] == 1
    told = server.http.get(f"/jobs/{job}/events").text
    assert all(f'"stage": "{stage}"' in told for stage in ("ingest", "sensitivity", "export", "report"))
    assert server.http.get(f"/jobs/{job}/model").is_success


@pytest.mark.parametrize("services", [1, 2])
def test_away_for_longer_than_a_lease(make_services: Make, own_postgresql: Any, services: int) -> None:
    url = own_postgresql.fresh()
    one = make_services(BITWRIGHT_DATABASE_URL=url, BITWRIGHT_MAX_INTERRUPTIONS="1")
    job = one.submit(seed=7)
    worker = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in one.files()), "the checkpoint to be kept")
    others = [
        make_services(BITWRIGHT_DATABASE_URL=url, BITWRIGHT_MAX_INTERRUPTIONS="1")
        for _ in range(services - 1)
    ]
    gone = time.monotonic()
    own_postgresql.go()
    one.until(lambda: not one.alive(worker), "the worker to be stopped")
    print(f"measured: database away, to the end of the worker: {time.monotonic() - gone:.2f} s")
    _refused(one, job)
    own_postgresql.come_back()
    back = time.monotonic()
    # One interruption would be one too many: nobody is to be blamed, and no other service takes the job as lost.
    ended = one.wait_for(job, "succeeded", "failed")
    print(
        f"measured: database back, to the end of a job from its checkpoint: {time.monotonic() - back:.2f} s"
    )
    assert ended["state"] == "succeeded", ended["error"]
    assert ended["attempt"] == 2
    for server in (one, *others):
        assert _ends(server, job) == 1
    assert f"goes on from {worker}" in one.http.get(f"/jobs/{job}/events").text
    log = one.folder.with_suffix(".log").read_text()
    assert log.count("Traceback") == 0
    assert "the database answers again" in log


def test_keys_are_asked_for_again_when_the_database_is_back(make_services: Make, own_postgresql: Any) -> None:
    server = make_services(BITWRIGHT_DATABASE_URL=own_postgresql.fresh(), BITWRIGHT_KEYS="on")
    own_postgresql.go()
    headers = {"Authorization": "Bearer bw_0123456789ab_nobody"}
    answer = server.http.get("/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "database")
    own_postgresql.come_back()
    server.until(lambda: server.http.get("/jobs", headers=headers).status_code == 401, "the keys")


def test_a_locked_sqlite_file_holds_things_up_and_no_more(
    make_services: Make, tmp_path: Path, gate: Any
) -> None:
    server = make_services(tmp_path / "data")
    job = server.submit(seed=9, model=gate.model)
    worker = server.worker(job)
    with closing(sqlite3.connect(tmp_path / "data" / "bitwright.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        gate.open()
        time.sleep(LEASE)
        server.until(lambda: not server.alive(worker), "the job to end, or to be stopped")
        assert server.job(job)["state"] not in {"succeeded", "failed"}  # reading goes on
        other.execute("ROLLBACK")
    assert server.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert _ends(server, job) == 1
