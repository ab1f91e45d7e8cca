"""Checks uploads in processes of their own, so that a hostile file cannot harm the service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import TimeoutError as PoolTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pebble import ProcessExpired

from app.executors import worker
from app.executors.pool import WorkerPool
from app.jobs.job import kind_of
from quant_core.spec import JobFailure, JobKind, JobSpec

_TASKS_PER_WORKER = 64
"""A fresh process now and then, in case a file made one leak."""


_TRIES = 3


class CheckerDownError(Exception):
    """The processes that check uploads do not stay up."""


class Checker:
    """Runs the engine's checks with a time limit. Use it from the event loop's thread."""

    def __init__(self, *, validators: Mapping[JobKind, str], workers: int, timeout: float) -> None:
        self._validators = validators
        self._timeout = timeout
        self._pool = WorkerPool(
            "cpu",
            workers=workers,
            tasks_per_worker=_TASKS_PER_WORKER,
            preload=validators["quantize"].partition(":")[0],
        )

    def start(self) -> None:
        """Start the processes."""
        self._pool.start()

    async def check(self, model: Path, data: Path, spec: JobSpec) -> JobFailure | None:
        """Check an upload.

        Args:
            model: The model's file.
            data: The samples' file.
            spec: What was asked.

        Returns:
            What is wrong with it, or None.

        Raises:
            CheckerDownError: If the processes that check uploads do not stay up.
        """
        for _ in range(_TRIES):
            try:
                return await self._once(model, data, spec)
            except BrokenProcessPool:  # an idle process was killed; this upload had no part in it
                continue
        raise CheckerDownError

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    async def _once(self, model: Path, data: Path, spec: JobSpec) -> JobFailure | None:
        validator = self._validators[kind_of(spec)]
        future = self._pool.schedule(worker.check, model, data, spec, validator, timeout=self._timeout)
        try:
            found: JobFailure | None = await asyncio.wrap_future(future)
        except (TimeoutError, PoolTimeoutError):
            return JobFailure(
                code="check_timeout",
                message=f"Checking the files took longer than {self._timeout:g} seconds.",
                remedy="Send fewer samples or a smaller model, or raise BITWRIGHT_CHECK_TIMEOUT.",
            )
        except ProcessExpired as error:
            return JobFailure(
                code="model",
                message=f"Reading the files crashed the process that checks them (exit code {error.exitcode}).",
                remedy="The model is most likely damaged, or needs more memory than there is; "
                "check it with `bitwright inspect`.",
                where=model.name,
            )
        return found
