"""Two services and a Ray cluster of several machines, when any of them dies: every job ends, once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Start = Callable[..., Any]


def _engines(server: Any, job: str) -> list[int]:
    """The process of every engine that told of itself, in any attempt."""
    told = [str(event.get("message")) for event in server.events(job)]
    return [int(message[4:]) for message in told if message.startswith("pid=")]


def _report(what: str, started: float) -> None:
    print(f"measured: {what}: {time.monotonic() - started:.1f} s")


def _holds(server: Any, job: str) -> bool:
    devices = server.http.get("/healthz").json()["devices"]
    return any(device["job"] == job for device in devices)


def test_a_machine_that_dies_takes_no_job_with_it(start_on_ray: Start, ray_cluster: Any, gate: Any) -> None:
    ray_cluster.start(cpus=0)
    machine = ray_cluster.start(cpus=2)
    one, two = start_on_ray(), start_on_ray()
    held = [service.submit(seed=9, model=gate.model) for service in (one, two)]
    assert all(two.worker(job) for job in held)
    gate.open()
    shared = [*held, one.submit(), two.submit(seed=11)]
    for job in shared:
        assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
        assert one.ends(job) == ["succeeded"]
        assert one.http.get(f"/jobs/{job}/model").content == two.http.get(f"/jobs/{job}/model").content
    (environment,) = [m for e in one.events(shared[3]) if (m := str(e.get("message"))).startswith("{")]
    assert not [name for name in json.loads(environment)["names"] if name.startswith(("RAY", "BITW", "AWS"))]

    job = one.submit(seed=7)
    engine = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in one.files()), "the checkpoint to be kept")
    started = time.monotonic()
    machine.kill()
    one.until(lambda: not one.alive(engine), "the engine to end with its machine")
    two.until(lambda: two.job(job)["attempt"] == 2, "the loss to be noticed")
    _report("machine of the cluster killed, lease of 10 s, to the next attempt", started)
    ray_cluster.start(cpus=1)
    started = time.monotonic()
    assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    _report("another machine joined, to the end of a job that had its sensitivities", started)
    assert f"goes on from {engine}" in [event.get("message") for event in two.events(job)]
    assert one.ends(job) == ["succeeded"]
    assert two.job(job)["attempt"] == 2


def test_a_machine_that_freezes_is_not_waited_for_longer_than_a_lease(
    start_on_ray: Start, ray_cluster: Any
) -> None:
    ray_cluster.start(cpus=0)
    machine = ray_cluster.start(cpus=1)
    one = start_on_ray()
    job = one.submit(seed=7)
    engine = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in one.files()), "the checkpoint to be kept")
    started = time.monotonic()
    frozen = machine.freeze()
    assert engine in frozen
    one.until(lambda: one.job(job)["attempt"] == 2, "the silence to be noticed")
    _report("machine of the cluster frozen, lease of 10 s, to the next attempt", started)
    ray_cluster.start(cpus=1)
    assert one.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert f"goes on from {engine}" in [event.get("message") for event in one.events(job)]
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    one.until(lambda: not one.alive(engine), "what was frozen to end")
    assert one.ends(job) == ["succeeded"]


def test_a_dead_services_job_goes_on_where_it_is(start_on_ray: Start, ray_cluster: Any, gate: Any) -> None:
    ray_cluster.start(cpus=1)
    one, two = start_on_ray(), start_on_ray()
    job = one.submit(seed=9, model=gate.model)
    engine = one.worker(job)
    holder, other = (one, two) if _holds(one, job) else (two, one)
    children = holder.children()
    started = time.monotonic()
    holder.process.kill()
    holder.process.wait()
    other.until(lambda: other.job(job)["attempt"] == 2, "the job to be taken over")
    _report("service killed, to the next attempt", started)
    gate.open()
    assert other.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert set(_engines(other, job)) == {engine}  # nothing was done over
    assert other.ends(job) == ["succeeded"]
    other.until(lambda: not other.alive(engine), "the engine to end")
    other.until(lambda: not any(map(other.alive, children)), "what the service started to end")


def test_a_frozen_service_loses_its_job_but_not_the_work(start_on_ray: Start, ray_cluster: Any) -> None:
    ray_cluster.start(cpus=1)
    one, two = start_on_ray(), start_on_ray()
    job = one.submit(seed=1)
    engine = one.worker(job)
    holder, other = (one, two) if _holds(one, job) else (two, one)
    holder.freeze()
    started = time.monotonic()
    other.until(lambda: other.job(job)["attempt"] == 2, "the lease to end")
    _report("service frozen, lease of 10 s, to the next attempt", started)
    assert other.worker(job, attempt=2) == engine  # told again, not begun again
    holder.thaw()
    log = holder.folder.with_suffix(".log")
    other.until(lambda: "(too late)" in log.read_text(), "the first to notice")
    assert other.alive(engine)
    assert other.http.delete(f"/jobs/{job}").status_code == 202
    other.wait_for(job, "canceled")
    other.until(lambda: not other.alive(engine), "the engine to end")
    assert other.ends(job) == ["canceled"]


def test_a_service_that_stops_hands_its_job_over(start_on_ray: Start, ray_cluster: Any) -> None:
    ray_cluster.start(cpus=1)
    one, two = start_on_ray(), start_on_ray()
    job = one.submit(seed=7)
    engine = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in two.files()), "the checkpoint to be kept")
    holder, other = (one, two) if _holds(one, job) else (two, one)
    started = time.monotonic()
    holder.process.terminate()
    holder.process.wait()
    other.until(lambda: not other.alive(engine), "the engine to end")
    other.until(lambda: other.job(job)["attempt"] == 2, "the other to take it")
    _report("service stopped in good order, to the next attempt", started)
    assert other.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    assert other.ends(job) == ["succeeded"]


def test_jobs_wait_for_a_cluster_that_is_gone(start_on_ray: Start, ray_cluster: Any) -> None:
    head = ray_cluster.start(cpus=1)
    one = start_on_ray()
    job = one.submit(seed=7)
    engine = one.worker(job)
    one.until(lambda: any("checkpoint" in name for name in one.files()), "the checkpoint to be kept")
    started = time.monotonic()
    head.kill()
    one.until(lambda: not one.alive(engine), "the engine to end with its machine")
    one.until(lambda: one.job(job)["state"] == "queued", "the loss to be noticed")
    _report("the whole cluster killed, lease of 10 s, until its job waits again", started)
    assert one.http.get("/healthz").is_success  # what Ray does to its drivers is not done to the service
    one.until(
        lambda: one.http.get("/readyz").status_code == 200, "the service to say that the cluster is away"
    )
    assert one.http.get("/readyz").json()["status"] == one.http.get("/healthz").json()["status"] == "degraded"
    waiting = one.submit()
    ray_cluster.start(cpus=1)
    started = time.monotonic()
    one.until(lambda: one.http.get("/readyz").status_code == 204, "the cluster to be reached again")
    for each in (job, waiting):
        assert one.wait_for(each, "succeeded", "failed")["state"] == "succeeded"
        assert one.ends(each) == ["succeeded"]
    _report("the cluster started again, to the end of both jobs", started)
    assert f"goes on from {engine}" in [event.get("message") for event in one.events(job)]
    one.until(lambda: not list(Path(one.folder).glob("services/*/scratch/*")), "what they worked on to go")


def test_a_service_whose_cluster_is_not_there_takes_jobs_and_says_that_they_wait(
    start_on_ray: Start, ray_cluster: Any
) -> None:
    ray_cluster.start(cpus=0)
    one = start_on_ray(BITWRIGHT_RAY_ADDRESS="127.0.0.1:9")
    answer = one.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "cannot be reached" in answer.json()["message"]
    assert "bitwright_degraded 1.0" in one.http.get("/metrics").text
    job = one.submit()
    assert one.job(job)["state"] == "queued"
    two = start_on_ray()
    ray_cluster.start(cpus=1)
    two.until(lambda: two.http.get("/readyz").status_code == 204, "the cluster to have room")
    assert "bitwright_degraded 0.0" in two.http.get("/metrics").text
    assert two.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
