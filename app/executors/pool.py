"""A pebble pool that is replaced when it breaks, and what the end of a worker process means."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from pebble import ProcessExpired, ProcessPool

from app.executors import failures, worker
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
        self._context = _Remembering()

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

    def exit_code(self, pid: int) -> int | None:
        """Tell how one of the processes ended; of one that crashes at once, the pool itself does not know whose it was.

        Args:
            pid: Its process id.

        Returns:
            The exit code, negative for a signal; None while it runs, and for processes of long ago.
        """
        return next((one.exitcode for one in reversed(self._context.started) if one.pid == pid), None)

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
                context=self._context,
            )
            _ = self._pool.active
        return self._pool


class _Remembering(SpawnContext):
    """Starts processes, and knows the latest."""

    def __init__(self) -> None:
        super().__init__()
        self.started: deque[SpawnProcess] = deque(maxlen=8)

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        """Make a process; multiprocessing's name for it.

        Args:
            args: As of `multiprocessing.Process`.
            options: As of `multiprocessing.Process`.

        Returns:
            The process.
        """
        process = SpawnProcess(*args, **options)
        self.started.append(process)
        return process


def lost(error: BaseException) -> JobFailure:
    """Say why a worker process is gone.

    Args:
        error: What the pool gave instead of a result.

    Returns:
        The error.
    """
    if failures.is_disk_full(error):
        return failures.disk_full(str(error))
    code = error.exitcode if isinstance(error, ProcessExpired) else None
    if code is None:
        reason = f"ended without a word ({type(error).__name__}: {error})"
    elif code < 0:
        reason = f"was killed by {signal.Signals(-code).name}"
    else:
        reason = f"ended with exit code {code}"
    memory = " Out of memory is the usual cause of SIGKILL." if code == -signal.SIGKILL else ""
    return failures.lost(f"The process that did this work {reason}.{memory}")
