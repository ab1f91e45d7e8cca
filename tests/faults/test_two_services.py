"""Two services on one database when one of them dies, freezes, or stops: nothing is lost, nothing ends twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Start = Callable[..., Any]


def _report(what: str, seconds: float) -> None:
    print(f"measured: {what}: {seconds:.2f} s")


def _no_orphans(*servers: Any, children: set[int]) -> None:
    servers[0].until(lambda: not any(map(servers[0].alive, children)), "the processes to end")


def test_two_services_share_the_work(start_service: Start, gate: Any) -> None:
    one, two = start_service(), start_service()
    jobs = [(one if number % 2 else two).submit(seed=9, model=gate.model) for number in range(4)]
    workers = {one.worker(job) for job in jobs[:2]}
    assert [len(workers & service.children()) for service in (one, two)] == [1, 1]
    gate.open()
    for job in jobs:
        assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
        assert one.ends(job) == ["succeeded"]
        assert one.http.get(f"/jobs/{job}/model").content == two.http.get(f"/jobs/{job}/model").content
    log = one.folder.with_suffix(".log").read_text()
    assert len({line.split("process")[0] for line in log.splitlines() if "starts on cpu" in line}) == 4


def test_a_dead_services_job_goes_on_elsewhere_from_its_checkpoint(start_service: Start) -> None:
    one = start_service()
    job = one.submit(seed=7)
    worker = one.worker(job)
    two = start_service()
    one.until(lambda: any("checkpoint" in name for name in two.files()), "the checkpoint to be kept")
    children = one.children()
    assert worker in children
    started = time.monotonic()
    one.process.kill()
    one.process.wait()
    two.until(lambda: two.job(job)["attempt"] == 2, "the job to be taken over")
    _report("service killed on the same machine, to the next attempt", time.monotonic() - started)
    assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    _report("the same, to the end of a job that had its sensitivities", time.monotonic() - started)
    assert f"goes on from {worker}" in [event.get("message") for event in two.events(job)]
    assert two.ends(job) == ["succeeded"]
    _no_orphans(two, children=children)
    two.until_gone("checkpoint")
    two.until_gone(f"scratch/{job}-2")


def test_a_frozen_service_loses_its_job_and_cannot_write_when_it_wakes(
    start_service: Start, gate: Any
) -> None:
    one, two = start_service(), start_service()
    job = one.submit(seed=9, model=gate.model)
    if one.worker(job) not in one.children():
        one, two = two, one
    one.freeze()
    started = time.monotonic()
    two.until(lambda: two.job(job)["attempt"] == 2, "the lease to end")
    _report("service frozen, lease of 10 s, to the next attempt", time.monotonic() - started)
    gate.open()
    assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    before = two.job(job), two.events(job)
    one.thaw()
    log = one.folder.with_suffix(".log")
    two.until(lambda: "(too late)" in log.read_text(), "the first to notice")
    assert (two.job(job), two.events(job)) == before
    assert two.ends(job) == ["succeeded"]
    outputs = {Path(name).name for name in two.files() if "output" in name}
    assert outputs == {"output-2.json"}
    assert one.wait_for(one.submit(), "succeeded")  # and works on


def test_a_service_that_stops_hands_its_job_over_at_once(start_service: Start) -> None:
    one, two = start_service(), start_service()
    job = one.submit(seed=7)
    pid = one.worker(job)
    holder = one if pid in one.children() else two
    other = two if holder is one else one
    one.until(lambda: any("checkpoint" in name for name in other.files()), "the checkpoint to be kept")
    started = time.monotonic()
    holder.process.terminate()
    holder.process.wait()
    other.until(lambda: other.job(job)["attempt"] == 2, "the other to take it")
    _report("service stopped in good order, to the next attempt", time.monotonic() - started)
    found = other.wait_for(job, "succeeded", "failed")
    assert found["state"] == "succeeded"
    assert other.ends(job) == ["succeeded"]


def test_a_killed_process_goes_on_from_its_checkpoint(start_service: Start) -> None:
    one = start_service()
    job = one.submit(seed=7)
    worker = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in one.files()), "the checkpoint to be kept")
    started = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    one.until(lambda: one.job(job)["attempt"] == 2, "another process to take it")
    _report("worker killed, to the next attempt", time.monotonic() - started)
    assert one.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert f"goes on from {worker}" in [event.get("message") for event in one.events(job)]
    assert one.job(job)["attempt"] == 2


def test_a_cancel_reaches_the_service_that_runs_the_job(start_service: Start) -> None:
    one = start_service()
    job = one.submit(seed=1)
    worker = one.worker(job)
    two = start_service()
    started = time.monotonic()
    assert two.http.delete(f"/jobs/{job}").status_code == 202
    two.wait_for(job, "canceled")
    _report("cancel by another service, to the end of the process", time.monotonic() - started)
    one.until(lambda: not one.alive(worker), "the process to end")
    assert two.ends(job) == ["canceled"]
