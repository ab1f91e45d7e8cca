"""A pebble pool that is replaced when it breaks, and what the end of a worker process means."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pebble import ProcessExpired, ProcessPool

from app.executors import worker
from quant_core.spec import JobFailure


class WorkerPool:
    """Processes for one device. Use it from one long-lived thread.

    Workers ask the kernel to die with their parent, and to the kernel the parent is the thread that
    started them: from a thread that ends, they would end with it.
    """

    def __init__(
        self, device: str, *, workers: int, tasks_per_worker: int, preload: str, memory: int = 0
    ) -> None:
        self._device = device
        self._workers = workers
        self._tasks_per_worker = tasks_per_worker
        self._preload = preload
        self._memory = memory
        self._pool: ProcessPool | None = None

    def start(self) -> None:
        """Start the processes, so that the first task finds the engine loaded."""
        self._running()

    def schedule(
        self, function: Callable[..., Any], *args: object, timeout: float | None = None
    ) -> Future[Any]:
        """Run a function in one of the processes.

        Args:
            function: What to run.
            args: Its arguments.
            timeout: Seconds after which its process is killed.

        Returns:
            What comes of it.
        """
        try:
            future: Future[Any] = self._running().schedule(function, args=args, timeout=timeout)
        except RuntimeError:  # it broke since it was asked
            future = self._running().schedule(function, args=args, timeout=timeout)
        return future

    def close(self) -> None:
        """Kill the processes."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def _running(self) -> ProcessPool:
        # Asking whether a new pool is active starts it.
        if self._pool is None or not self._pool.active:
            self.close()
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=self._tasks_per_worker,
                initializer=worker.prepare,
                initargs=(os.getpid(), self._device, self._preload, self._memory),
                context=multiprocessing.get_context("spawn"),
            )
            _ = self._pool.active
        return self._pool


def lost(error: BaseException) -> JobFailure:
    """Say why a worker process is gone.

    Args:
        error: What the pool gave instead of a result.

    Returns:
        The error.
    """
    if worker.is_disk_full(error):
        return worker.disk_full(str(error))
    code = error.exitcode if isinstance(error, ProcessExpired) else None
    if code is None:
        reason = f"ended without a word ({type(error).__name__}: {error})"
    elif code < 0:
        reason = f"was killed by {signal.Signals(-code).name}"
    else:
        reason = f"ended with exit code {code}"
    memory = " Out of memory is the usual cause of SIGKILL." if code == -signal.SIGKILL else ""
    return JobFailure(
        code="worker_lost",
        message=f"The process that did this work {reason}.{memory}",
        remedy="Send it again; if it ends the same way, try fewer samples, and report it with the service's log.",
    )
