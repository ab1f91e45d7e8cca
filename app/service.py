"""The running service: its parts, put together once, started and stopped in order."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import IO

from app.executors import LocalExecutor
from app.executors.checker import Checker
from app.executors.devices import find_devices
from app.jobs.database import Database
from app.jobs.store import JobStore
from app.jobs.supervisor import Supervisor
from app.settings import Settings
from app.storage import LocalStorage, Storage


class DataFolderInUseError(RuntimeError):
    """Another service works in this data folder."""


class Service:
    """Everything that lives as long as the service does.

    Attributes:
        settings: What it was told from outside.
        storage: Uploads and results.
        store: The jobs; there once it was started.
        checker: Checks uploads.
        supervisor: Runs jobs.
        stopping: Set when open streams should end.
    """

    store: JobStore
    storage: Storage
    checker: Checker
    supervisor: Supervisor

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.devices: tuple[str, ...] = ()
        self._lock: IO[bytes] | None = None
        self._database: Database | None = None

    @property
    def staging(self) -> Path:
        """Where uploads are written before they are accepted."""
        return self.settings.data_dir / "staging"

    def start(self) -> None:
        """Take the data folder, put its jobs in order, and start the processes."""
        settings = self.settings
        folder = settings.data_dir
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _take(folder)
        shutil.rmtree(self.staging, ignore_errors=True)  # of requests that died with the last service
        self.staging.mkdir()
        self._database = Database(folder / "bitwright.sqlite")
        self.store = JobStore(self._database)
        self.storage = LocalStorage(folder / "jobs")
        self.store.recover(settings.max_interruptions)
        for orphan in self.storage.prefixes() - self.store.ids_with_files():
            self.storage.remove(orphan)
        self.devices = find_devices(settings.devices)
        executor = LocalExecutor(self.devices, settings.engine)
        self.checker = Checker(
            validator=settings.validator, workers=settings.checkers, timeout=settings.check_timeout
        )
        executor.start()
        self.checker.start()
        self.supervisor = Supervisor(self.store, self.storage, executor, folder / "scratch")
        self.supervisor.start()

    def stop(self) -> None:
        """Give running jobs back, end the processes, and let go of the data folder."""
        self.supervisor.stop()
        self.checker.close()
        if self._database is not None:
            self._database.close()
        if self._lock is not None:
            self._lock.close()


def _take(folder: Path) -> IO[bytes]:
    lock = (folder / "service.lock").open("ab")
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise DataFolderInUseError(
                f"Another Bitwright service works in {folder.resolve()}. "
                "Stop it, or give this one another folder with --data-dir."
            ) from error
    return lock
