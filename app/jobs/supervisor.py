"""Drives jobs from queued to an end: claims them, runs them, writes down what happens."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from app.executors.devices import served_by
from app.executors.protocol import Executor, Outcome, Task, Ticket
from app.jobs.job import Job, JobError
from app.jobs.store import JobStore
from app.storage import Storage

_log = logging.getLogger("bitwright.jobs")

_BUSY_SECONDS = 0.1
_IDLE_SECONDS = 1.0
_STOP_SECONDS = 10.0


@dataclass
class _Run:
    job: Job
    ticket: Ticket
    stopping: bool = False


class Supervisor:
    """One thread that gives queued jobs to free devices and follows them."""

    def __init__(self, store: JobStore, storage: Storage, executor: Executor, scratch: Path) -> None:
        self._store = store
        self._storage = storage
        self._executor = executor
        self._scratch = scratch
        self._runs: dict[str, _Run] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        shutil.rmtree(self._scratch, ignore_errors=True)  # of attempts that died with the last service
        self._scratch.mkdir(parents=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that something was queued or canceled."""
        self._wake.set()

    def stop(self) -> None:
        """Stop the jobs that run, give them back to the queue, and end the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    @property
    def running(self) -> dict[str, str]:
        """Job by busy device."""
        return {device: run.job.id for device, run in tuple(self._runs.items())}

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:
                _log.exception("the supervisor met an error and goes on")
                time.sleep(_IDLE_SECONDS)
            self._wake.wait(_BUSY_SECONDS if self._runs else _IDLE_SECONDS)
            self._wake.clear()
        self._give_back()

    def _turn(self) -> None:
        for device in self._executor.devices:
            if device not in self._runs:
                self._begin(device)
        for device, run in tuple(self._runs.items()):
            self._follow(device, run)

    def _begin(self, device: str) -> None:
        job = self._store.claim(served_by(device))
        if job is None:
            return
        _log.info("job %s, attempt %d, starts on %s", job.id, job.attempt, device)
        try:
            self._runs[device] = _Run(job, self._executor.submit(self._task(job), device))
        except Exception as error:
            _log.exception("job %s cannot start", job.id)
            self._store.finish(job, "failed", error=_internal(f"The job could not be started: {error}"))

    def _task(self, job: Job) -> Task:
        scratch = self._folder(job)
        self._storage.fetch(f"{job.id}/input", scratch / "in")
        return Task(
            job_id=job.id,
            attempt=job.attempt,
            model=scratch / "in" / "model" / job.model_name,
            data=scratch / "in" / "data" / job.data_name,
            spec=job.spec,
            scratch=scratch,
        )

    def _follow(self, device: str, run: _Run) -> None:
        update = self._executor.poll(run.ticket)
        if update.steps:
            self._store.advance(run.job, update.steps)
        if update.outcome is not None:
            del self._runs[device]
            self._end(run, update.outcome)
        elif not run.stopping and self._store.cancel_requested(run.job):
            run.stopping = True
            self._executor.cancel(run.ticket)

    def _end(self, run: _Run, outcome: Outcome) -> None:
        job = run.job
        if self._store.cancel_requested(job):  # who was told that it stops must not find results later
            outcome = Outcome(state="canceled")
        try:
            if outcome.state == "succeeded":
                self._storage.remove(f"{job.id}/output")
                self._storage.publish(run.ticket.task.out, f"{job.id}/output")
        except Exception as error:
            _log.exception("job %s: the results cannot be kept", job.id)
            outcome = Outcome(state="failed", error=_internal(f"The results could not be kept: {error}"))
        finally:
            shutil.rmtree(self._folder(job), ignore_errors=True)
        held = self._store.finish(job, outcome.state, error=outcome.error, summary=outcome.summary)
        if held and outcome.state != "succeeded":
            self._storage.remove(job.id)
        _log.info(
            "job %s, attempt %d: %s%s", job.id, job.attempt, outcome.state, "" if held else " (too late)"
        )

    def _give_back(self) -> None:
        for run in self._runs.values():
            self._executor.cancel(run.ticket)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._runs and time.monotonic() < deadline:
            for device, run in tuple(self._runs.items()):
                outcome = self._executor.poll(run.ticket).outcome
                if outcome is None:
                    continue
                del self._runs[device]
                if outcome.state == "canceled" and not self._store.cancel_requested(run.job):
                    self._store.requeue(run.job)
                    shutil.rmtree(self._folder(run.job), ignore_errors=True)
                else:
                    self._end(run, outcome)
            time.sleep(_BUSY_SECONDS / 5)
        self._executor.close()

    def _folder(self, job: Job) -> Path:
        return self._scratch / f"{job.id}-{job.attempt}"


def _internal(message: str) -> JobError:
    return JobError(
        code="internal",
        message=message,
        remedy="Look in the service's log; report it if it is a fault of ours.",
    )
