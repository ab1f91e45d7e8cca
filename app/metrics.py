"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.job import Job, now
from quant_core.spec import JobState, Progress, Stage

disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)


class Metrics:
    """Counts of one service process; jobs by state are those of the whole database."""

    def __init__(
        self, counts: Callable[[], dict[str, int]], degraded: Callable[[], bool] = lambda: False
    ) -> None:
        """Start at zero.

        Args:
            counts: Tells how many jobs there are by state.
            degraded: Whether jobs must wait for something other than a free device.
        """
        registry = self._registry = CollectorRegistry()
        registry.register(_Jobs(counts))
        waiting = Gauge(
            "bitwright_degraded",
            "1 while jobs are taken but cannot run, as when the cluster is away.",
            registry=registry,
        )
        waiting.set_function(lambda: float(degraded()))
        self._jobs = Histogram(
            "bitwright_job_seconds",
            "From start to end.",
            ("kind", "state"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._stages = Histogram(
            "bitwright_stage_seconds", "One stage of a job.", ("stage",), registry=registry, buckets=_SECONDS
        )
        self._leases = Counter(
            "bitwright_leases_lost", "Jobs taken from services that fell silent.", registry=registry
        )
        self._workers = Counter(
            "bitwright_workers_lost", "Worker processes that ended in the middle of a job.", registry=registry
        )
        self._received = Counter("bitwright_received_bytes", "Bytes of request bodies.", registry=registry)
        self._sent = Counter("bitwright_sent_bytes", "Bytes of answers.", registry=registry)
        self._requests = Counter("bitwright_requests", "Requests.", ("method", "status"), registry=registry)

    def job_ended(self, job: Job, state: JobState) -> None:
        """Count a job.

        Args:
            job: The job as it was claimed.
            state: How it ended.
        """
        if job.started is not None:
            self._jobs.labels(job.kind, state).observe((now() - job.started).total_seconds())

    def leases_lost(self, count: int) -> None:
        """Count jobs that were taken over.

        Args:
            count: How many.
        """
        self._leases.inc(count)

    def worker_lost(self) -> None:
        """Count a worker process that ended in the middle of a job."""
        self._workers.inc()

    def answered(self, method: str, status: int, received: int, sent: int) -> None:
        """Count a request.

        Args:
            method: Its method.
            status: The answer's status.
            received: Bytes of its body.
            sent: Bytes of the answer's body.
        """
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()
        self._received.inc(received)
        self._sent.inc(sent)

    def watch(self) -> StageWatch:
        """Begin to time the stages of an attempt.

        Returns:
            What to tell its steps.
        """
        return StageWatch(lambda stage, seconds: self._stages.labels(stage).observe(seconds))

    def page(self) -> bytes:
        """Write everything down.

        Returns:
            Text in Prometheus' format.
        """
        return generate_latest(self._registry)


class StageWatch:
    """Times the stages of one attempt from what it says, as exactly as it is listened to: to about 0.1 s."""

    def __init__(self, observe: Callable[[Stage, float], None]) -> None:
        self._observe = observe
        self._stage: Stage | None = None
        self._since = time.monotonic()

    def note(self, steps: Iterable[Progress]) -> None:
        """Take in what an attempt said.

        Args:
            steps: Its steps since the last look, oldest first.
        """
        for step in steps:
            if step.stage != self._stage:
                self.end()
                self._stage = step.stage

    def end(self) -> None:
        """Count the stage that was at work."""
        moment = time.monotonic()
        if self._stage is not None:
            self._observe(self._stage, moment - self._since)
        self._stage, self._since = None, moment


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class _Jobs(Collector):
    def __init__(self, counts: Callable[[], dict[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        found = GaugeMetricFamily("bitwright_jobs", "Jobs in the database.", labels=["state"])
        for state, count in sorted((dict.fromkeys(get_args(JobState), 0) | self._counts()).items()):
            found.add_metric([state], count)
        return [found]
