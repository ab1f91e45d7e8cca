"""The running service: its parts, put together once, started and stopped in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.executors import Cluster, Executor, LocalExecutor, RayExecutor
from app.executors.checker import Checker
from app.executors.devices import find_devices
from app.housekeeping import Housekeeper
from app.job import Job
from app.jobs.database import Database
from app.jobs.heartbeat import Heartbeat, Rhythm
from app.jobs.leases import Leases
from app.jobs.presence import Presence
from app.jobs.store import JobStore
from app.jobs.supervisor import Supervisor
from app.keys import KeyStore, KnownKeys
from app.metrics import Metrics
from app.opening import DataFolderError, open_database, open_files
from app.settings import Settings
from app.storage import Storage, Uploads
from app.tracing import open_tracing
from app.transfers import Transfers
from app.webhooks import Webhooks
from quant_core.spec import JobKind


class Service:
    """Everything that lives as long as the service does. Several may share one database and one storage.

    Attributes:
        settings: What it was told from outside.
        database: The jobs' database; there once it was opened, as is all that follows.
        storage: What jobs are given and make.
        uploads: What clients send ahead.
        transfers: Which of that is on its way.
        store: The jobs.
        checker: Checks uploads.
        supervisor: Runs jobs.
        keys: Who may ask.
        webhooks: Tells others of jobs that ended.
        metrics: What is counted.
        tracing: Makes spans; None where nobody asked for them.
        heartbeat: Keeps leases.
        housekeeper: Removes what is no longer needed.
        stopping: Set when open streams should end.
    """

    database: Database
    storage: Storage
    uploads: Uploads
    store: JobStore
    checker: Checker
    supervisor: Supervisor
    heartbeat: Heartbeat
    housekeeper: Housekeeper
    keys: KnownKeys
    webhooks: Webhooks

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(lambda: self.store.counts(), lambda: self.fault is not None)
        self.stopping = asyncio.Event()
        self.transfers = Transfers()
        self.tracing = open_tracing()
        self._executor: Executor | None = None
        self._presence: Presence | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """What jobs may run on; of a cluster that was not reached yet, nobody knows."""
        return (() if self._executor is None else self._executor.devices) or ("cpu", "cuda")

    @property
    def fault(self) -> str | None:
        """Why jobs that are taken must wait, other than for a free device."""
        return None if self._executor is None else self._executor.fault

    @property
    def staging(self) -> Path:
        """Where uploads are written before they are accepted."""
        return self._own / "staging"

    def open(self) -> None:
        """Open the data folder, the database and the storage; nothing happens if that was done.

        Raises:
            DataFolderError: If the folder cannot be used.
            DatabaseError: If the database cannot be reached.
            WrongSchemaError: If another version of Bitwright wrote it.
        """
        if self._presence is not None:
            return
        folder = self.settings.data_dir
        try:
            presence = Presence(folder / "services")
            (presence.folder / "staging").mkdir()
        except OSError as error:
            raise DataFolderError(folder, error) from error
        try:
            self.database = open_database(self.settings)
            self.storage, self.uploads = open_files(self.settings)
        except BaseException:
            presence.leave()
            raise
        self.store = JobStore(self.database)
        self.keys = KnownKeys(KeyStore(self.database))
        secret = self.settings.webhook_secret.get_secret_value()
        self.webhooks = Webhooks(self.database, secret, self.settings.webhook_hosts)
        self._presence = presence

    def start(self) -> None:
        """Take over what dead services left and start the processes. The thread that calls this must outlive them."""
        self.open()
        assert self._presence is not None
        settings, presence = self.settings, self._presence
        self._executor = executor = _executor(settings)
        validators: dict[JobKind, str] = {
            "quantize": settings.validator,
            "analyze": settings.analysis_validator,
        }
        self.checker = Checker(
            validators=validators,
            inspector=settings.inspector,
            workers=settings.checkers,
            timeout=settings.check_timeout,
            limits=(settings.model_nodes, settings.model_nesting, settings.tensor_limit),
            memory=settings.job_memory,
        )
        leases = Leases(self.database, presence.holder, settings.lease_seconds)
        rhythm = Rhythm(settings.renew_seconds, settings.lease_seconds, settings.max_interruptions)
        self.heartbeat = Heartbeat(leases, self.storage, presence, rhythm, self._taken)
        self.supervisor = Supervisor(
            leases,
            self.storage,
            executor,
            self._own / "scratch",
            silent=lambda: self.heartbeat.silent,
            max_interruptions=settings.max_interruptions,
            metrics=self.metrics,
            tracing=self.tracing,
            on_end=self.webhooks.ended,
        )
        self.housekeeper = Housekeeper(self.store, self.storage, self.uploads, settings.result_days, presence)
        self.webhooks.start()
        executor.start()
        self.checker.start()
        self.heartbeat.start()
        self.housekeeper.start()
        self.supervisor.start()

    def stop(self) -> None:
        """Give running jobs back, end the processes, and let go of database and folder."""
        self.supervisor.stop()
        self.heartbeat.stop()
        self.housekeeper.stop()
        self.webhooks.stop()
        self.checker.close()
        self.database.close()
        if self.tracing is not None:
            self.tracing.stop()
        if self._presence is not None:
            self._presence.leave()
            self._presence = None

    @property
    def _own(self) -> Path:
        assert self._presence is not None, "the service was not opened"
        return self._presence.folder

    def _taken(self, jobs: tuple[Job, ...]) -> None:
        self.metrics.leases_lost(len(jobs))
        for job in jobs:
            if job.ended:
                self.webhooks.ended(job.id)
        self.supervisor.wake()


def _executor(settings: Settings) -> Executor:
    engines: dict[JobKind, str] = {"quantize": settings.engine, "analyze": settings.analyzer}
    if settings.executor == "local":
        return LocalExecutor(find_devices(settings.devices), engines, memory=settings.job_memory)
    cluster = Cluster(
        address=settings.ray_address,
        token=settings.ray_token.get_secret_value(),
        cpus=settings.ray_cpus,
        memory=settings.job_memory,
        silence=settings.lease_seconds,
    )
    return RayExecutor(cluster, settings.devices, engines)
