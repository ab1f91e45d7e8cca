"""What happens when things go wrong: killed workers, canceled jobs, a service that ends and starts again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest


def test_a_killed_worker_fails_its_job_and_nothing_else(server: Any) -> None:
    job = server.submit(seed=1)
    waiting = server.submit()
    os.kill(server.worker(job), signal.SIGKILL)
    server.until(lambda: server.job(job)["attempt"] == 2, "another process to take it")
    os.kill(server.worker(job, attempt=2), signal.SIGKILL)
    failed = server.wait_for(job, "failed")
    assert failed["error"]["code"] == "worker_lost"
    assert "SIGKILL" in failed["error"]["message"]
    assert failed["error"]["remedy"]
    assert server.wait_for(waiting, "succeeded", "failed")["state"] == "succeeded"
    server.until_gone(job)


def test_the_kernel_takes_workers_first_when_memory_runs_out(server: Any) -> None:
    job = server.submit(seed=1)
    worker = Path(f"/proc/{server.worker(job)}/oom_score_adj")
    service = Path(f"/proc/{server.process.pid}/oom_score_adj")
    assert int(worker.read_text()) > int(service.read_text())
    server.http.delete(f"/jobs/{job}")
    server.wait_for(job, "canceled")


def test_a_crash_in_native_code_fails_the_job(server: Any) -> None:
    failed = server.wait_for(server.submit(seed=3), "failed")
    assert "SIGSEGV" in failed["error"]["message"]
    assert server.wait_for(server.submit(), "succeeded")


@pytest.mark.parametrize("seed", [1, 2], ids=["in Python", "in C, holding the interpreter"])
def test_a_running_job_is_killed_at_once_when_canceled(server: Any, seed: int) -> None:
    job = server.submit(seed=seed)
    pid = server.worker(job)
    answer = server.http.delete(f"/jobs/{job}")
    assert answer.status_code == 202
    ended = server.wait_for(job, "canceled")  # by itself it would go on for an hour
    assert ended["error"] is None
    server.until(lambda: not server.alive(pid), "the process to end")
    assert server.wait_for(server.submit(), "succeeded")
    server.until_gone(job)


def test_a_queued_job_is_canceled_before_it_starts(server: Any) -> None:
    running = server.submit(seed=1)
    queued = server.submit()
    answer = server.http.delete(f"/jobs/{queued}")
    assert (answer.status_code, answer.json()["state"]) == (200, "canceled")
    server.until_gone(queued)
    server.http.delete(f"/jobs/{running}")
    server.wait_for(running, "canceled")
    assert server.job(queued)["attempt"] == 0


def test_idle_processes_may_die_too(server: Any) -> None:
    server.wait_for(server.submit(), "succeeded")
    for pid in server.children():
        os.kill(pid, signal.SIGKILL)
    assert server.wait_for(server.submit(), "succeeded", "failed")["state"] == "succeeded"


def test_a_killed_service_starts_its_jobs_again_and_gives_up_in_the_end(own_server: Any) -> None:
    job = own_server.submit(seed=1)
    queued = own_server.submit()
    worker = own_server.worker(job)
    children = own_server.children()
    assert worker in children
    own_server.stop(signal.SIGKILL)
    own_server.until(lambda: not any(map(own_server.alive, children)), "the workers to follow their parent")

    own_server.start()
    again = own_server.wait_until_running(job)
    assert again["attempt"] == 2
    own_server.until(lambda: own_server.job(job)["stage"] == "sensitivity", "the second attempt")
    own_server.stop(signal.SIGKILL)

    own_server.start()
    failed = own_server.wait_for(job, "failed")
    assert failed["error"]["code"] == "interrupted"
    assert own_server.wait_for(queued, "succeeded")["attempt"] == 1
    own_server.until_gone(job)
    own_server.until_gone("/scratch/")


def test_a_service_that_stops_in_good_order_gives_its_jobs_back(own_server: Any) -> None:
    job = own_server.submit(seed=1)
    for attempt in (1, 2):  # one more than a service that dies may take: this is nobody's fault
        own_server.until(lambda: own_server.job(job)["stage"] == "sensitivity", "the attempt")
        assert own_server.job(job)["attempt"] == attempt
        children = own_server.children()
        with own_server.http.stream("GET", f"/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            own_server.process.terminate()
            assert not any('"succeeded"' in line for line in lines)  # to its end, which is in good order too
        assert own_server.process.wait() == -signal.SIGTERM
        own_server.until(lambda found=children: not any(map(own_server.alive, found)), "the processes to end")
        own_server.stop()
        own_server.start()
    assert own_server.wait_until_running(job)["attempt"] == 3
    own_server.http.delete(f"/jobs/{job}")
    assert own_server.wait_for(job, "canceled")
