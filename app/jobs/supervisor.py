"""Drives jobs from queued to an end: claims them, runs them, writes down what happens."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.exc import OperationalError

from app.executors.devices import served_by
from app.executors.failures import disk_full, is_disk_full
from app.executors.protocol import Executor, Outcome, Task, Ticket
from app.job import Job
from app.jobs.leases import BATCH_STEP, Leases
from app.metrics import Metrics, StageWatch
from app.storage import Storage
from app.tracing import AttemptTrace, Tracing
from quant_core.spec import JobFailure, Progress

_log = logging.getLogger("bitwright.jobs")

_BUSY_SECONDS = 0.1
_IDLE_SECONDS = 1.0
_STOP_SECONDS = 10.0
_MOST_SHORTAGES = 2
"""How often a job that ran out of memory is tried with smaller batches."""

Files = tuple[tuple[str, str, int], ...]
"""Name, place in the storage, and bytes of each file of a result."""


@dataclass
class _Run:
    job: Job
    ticket: Ticket
    watch: StageWatch
    trace: AttemptTrace | None = None
    steps: list[Progress] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    stopping: bool = False
    outcome: Outcome | None = None
    files: Files | None = None


class Supervisor:
    """One thread that gives queued jobs to free devices and follows them."""

    def __init__(
        self,
        leases: Leases,
        storage: Storage,
        executor: Executor,
        scratch: Path,
        *,
        silent: Callable[[], bool] = lambda: False,
        on_end: Callable[[str], None] = lambda _: None,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
        max_interruptions: int = 2,
    ) -> None:
        """Set it up.

        Args:
            leases: The jobs of this service.
            storage: Uploads and results.
            executor: Runs attempts.
            scratch: A folder of this service alone, for the files of attempts.
            silent: Whether all leases must be presumed lost.
            on_end: Told of each job that this service ended.
            metrics: What counts jobs and stages.
            tracing: Makes spans of attempts and stages, where that is asked for.
            max_interruptions: A job whose process is lost this often fails.
        """
        self._leases = leases
        self._storage = storage
        self._executor = executor
        self._scratch = scratch
        self._silent = silent
        self._on_end = on_end
        self._metrics = metrics or Metrics(dict)
        self._tracing = tracing
        self._max_interruptions = max_interruptions
        self._runs: dict[str, _Run] = {}
        self._away = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that something was queued or canceled, or has ended."""
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

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while not self._stop.is_set():
            calm = self._turn()
            self._wake.wait(_BUSY_SECONDS if self._runs and calm else _IDLE_SECONDS)
            self._wake.clear()
        self._give_back()

    def _turn(self) -> bool:
        idle = [device for device in self._executor.devices if device not in self._runs]
        room = self._executor.capacity(len(self._runs))
        steps = [partial(self._begin, device) for device in idle[:room]]
        steps += [partial(self._follow, device) for device in tuple(self._runs)]
        fared = [self._guarded(step) for step in steps]  # each of them, whatever became of the one before
        return all(fared)

    def _guarded(self, step: Callable[[], None]) -> bool:
        # A full disk, say, stops one step of one job; the next turn takes it up again.
        try:
            step()
        except OperationalError as error:
            if not self._away:  # said once, however often it is asked in vain
                _log.error("the database does not answer: %s", error.orig)
            self._away = True
            return False
        except Exception:
            _log.exception("the supervisor met an error and goes on")
            return False
        if self._away:
            _log.info("the database answers again")
        self._away = False
        return True

    def _begin(self, device: str) -> None:
        job = self._leases.claim(served_by(device))
        if job is None:
            return
        _log.info("job %s, attempt %d, starts on %s", job.id, job.attempt, device, extra={"job": job.id})
        try:
            ticket = self._executor.submit(self._task(job), device)
            trace = None if self._tracing is None else self._tracing.attempt(job)
            self._runs[device] = _Run(job, ticket, self._metrics.watch(), trace)
        except Exception as error:
            _log.exception("job %s, attempt %d, cannot start", job.id, job.attempt, extra={"job": job.id})
            told = _kept_from(f"The job could not be started: {error}", error)
            held = self._leases.interrupted(job, told, self._max_interruptions)  # the bucket may be back soon
            shutil.rmtree(self._folder(job), ignore_errors=True)
            if held is not None and held.ended:
                self._storage.remove(job.id)
                self._on_end(job.id)

    def _task(self, job: Job) -> Task:
        scratch = self._folder(job)
        self._storage.fetch(f"{job.id}/input", scratch / "in")
        for name, key in self._leases.checkpoints(job).items():
            self._storage.fetch(key, scratch / "checkpoints" / name)
        return Task(
            job_id=job.id,
            attempt=job.attempt,
            model=scratch / "in" / "model" / job.model,
            data=scratch / "in" / "data" / job.data,
            spec=job.spec,
            scratch=scratch,
            earlier=next((scratch / "in" / "earlier").glob("*"), None),
            memory_share=BATCH_STEP**job.shortages,
        )

    def _follow(self, device: str) -> None:
        run = self._runs[device]
        self._look(run)
        # Before the database is asked for anything: it may be what is away.
        if run.outcome is None and not run.stopping and self._silent():
            self._stop_run(run)
        self._note(run)
        if run.outcome is not None:
            self._end(run, run.outcome)
            del self._runs[device]
        elif not run.stopping and self._leases.must_stop(run.job):
            self._stop_run(run)

    def _stop_run(self, run: _Run) -> None:
        run.stopping = True
        self._executor.cancel(run.ticket)

    def _look(self, run: _Run) -> None:
        if run.outcome is None:
            update = self._executor.poll(run.ticket)
            run.outcome = update.outcome
            run.watch.note(update.steps)
            if run.trace is not None:
                run.trace.note(update.steps)
            run.steps += update.steps
            run.checkpoints += update.checkpoints
            if run.outcome is not None and run.outcome.error is not None and not _goes_on(run.outcome):
                # Nobody goes on from here, and a database on the same disk may need the room to write that down.
                shutil.rmtree(self._folder(run.job), ignore_errors=True)
                run.checkpoints.clear()

    def _note(self, run: _Run) -> None:
        # What an attempt said waits here as long as it cannot be written down: it says nothing twice.
        if run.steps:
            self._leases.advance(run.job, run.steps)
            run.steps.clear()
        while run.checkpoints:
            self._keep(run, run.checkpoints[0])
            del run.checkpoints[0]

    def _keep(self, run: _Run, name: str) -> None:
        # A copy: the worker may still read its own.
        job, copy = run.job, run.ticket.task.scratch / f"{name}.copy"
        key = f"{job.id}/checkpoint-{name}-{job.attempt}"
        try:
            shutil.copytree(run.ticket.task.checkpoints / name, copy)
            size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
            self._storage.publish(copy, key)
            if not self._leases.keep_checkpoint(job, name, key, size):
                self._storage.remove(key)
        except OSError:  # the attempt itself is not harmed; its successor starts further back
            _log.exception("job %s: checkpoint %s cannot be kept", job.id, name)
            shutil.rmtree(copy, ignore_errors=True)

    def _end(self, run: _Run, outcome: Outcome) -> None:
        job, output = run.job, f"{run.job.id}/output-{run.job.attempt}"
        if self._leases.must_stop(job):  # who was told that it stops must not find results later
            outcome = Outcome(state="canceled")
        elif outcome.state == "canceled":  # by us, because the service stops or could not renew its leases
            self._leases.requeue(job)
            if run.trace is not None:
                run.trace.end("handed_back", None)
            shutil.rmtree(self._folder(job), ignore_errors=True)
            return
        if outcome.state == "succeeded" and run.files is None:
            outcome = self._publish(run, outcome, output)
        if outcome.error is not None and _goes_on(outcome):
            held = (
                self._leases.ran_out(job, outcome.error, _MOST_SHORTAGES)
                if outcome.with_less
                else self._leases.interrupted(job, outcome.error, self._max_interruptions)
            )
            ended = held is not None and held.ended
        else:
            checkpoints = self._leases.checkpoints(job)
            ended = self._leases.finish(
                job, outcome.state, error=outcome.error, summary=outcome.summary, artifacts=run.files or ()
            )
            held = job if ended else None
            for key in checkpoints.values() if ended else ():
                self._storage.remove(key)
        if ended and outcome.state != "succeeded":
            self._storage.remove(job.id)
        elif held is None:  # a successor has the job: what this attempt made is in nobody's way
            self._storage.remove(output)
        shutil.rmtree(self._folder(job), ignore_errors=True)
        _log.info(
            "job %s, attempt %d: %s%s%s",
            job.id,
            job.attempt,
            outcome.state,
            "" if outcome.error is None else f" ({outcome.error.code}: {outcome.error.message})",
            "" if held else " (too late)",
            extra={"job": job.id},
        )
        run.watch.end()
        if run.trace is not None:
            run.trace.end(outcome.state, None if outcome.error is None else outcome.error.code)
        if outcome.error is not None and outcome.error.code == "worker_lost":
            self._metrics.worker_lost()
        if ended:
            self._metrics.job_ended(job, outcome.state)
            self._on_end(job.id)
        self.wake()  # a place is free, and the next job may have waited for it

    def _publish(self, run: _Run, outcome: Outcome, output: str) -> Outcome:
        out = run.ticket.task.out
        files = tuple(
            (
                path.relative_to(out).as_posix(),
                f"{output}/{path.relative_to(out).as_posix()}",
                path.stat().st_size,
            )
            for path in sorted(out.rglob("*"))
            if path.is_file()
        )
        try:
            self._storage.publish(out, output)
            run.files = files
        except OSError as error:
            _log.exception("job %s: the results cannot be kept", run.job.id)
            return Outcome(state="failed", error=_kept_from(f"The results could not be kept: {error}", error))
        return outcome

    def _give_back(self) -> None:
        for run in self._runs.values():
            self._executor.cancel(run.ticket)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._runs and time.monotonic() < deadline:
            for device in tuple(self._runs):
                self._guarded(partial(self._release, device))
            time.sleep(_BUSY_SECONDS / 5)
        self._executor.close()

    def _release(self, device: str) -> None:
        run = self._runs[device]
        self._look(run)
        self._note(run)
        if run.outcome is None:
            return
        self._end(run, run.outcome)
        del self._runs[device]

    def _folder(self, job: Job) -> Path:
        return self._scratch / f"{job.id}-{job.attempt}"


def _goes_on(outcome: Outcome) -> bool:
    """Whether another attempt may go on from the checkpoints."""
    return outcome.with_less or (outcome.error is not None and outcome.error.code == "worker_lost")


def _kept_from(message: str, error: Exception) -> JobFailure:
    if is_disk_full(error):
        return disk_full(message)
    return JobFailure(
        code="internal",
        message=message,
        remedy="Look in the service's log; report it if it is a fault of ours.",
        retryable=True,
    )
