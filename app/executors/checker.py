"""Checks uploads in processes of their own, so that a hostile file cannot harm the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as PoolTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from pebble import ProcessExpired

from app.executors import worker
from app.executors.pool import WorkerPool
from app.job import kind_of
from quant_core.spec import JobFailure, JobKind, JobSpec, Preflight

_TASKS_PER_WORKER = 64
"""A fresh process now and then, in case a file made one leak."""


_TRIES = 3


class CheckerDownError(Exception):
    """The processes that check uploads do not stay up."""


class Checker:
    """Runs the engine's checks with a time limit. Use it from the event loop's thread."""

    def __init__(
        self,
        *,
        validators: Mapping[JobKind, str],
        inspector: str,
        workers: int,
        timeout: float,
        limits: tuple[int, int, int],
        memory: int = 0,
    ) -> None:
        """Set it up.

        Args:
            validators: Dotted names of the engine's checks.
            inspector: Dotted name of what inspects models.
            workers: How many processes.
            timeout: Seconds that one upload may take.
            limits: Most nodes, nesting and bytes of one tensor; 0 bytes for no limit.
            memory: The most bytes of address space that one process may take; 0 for no limit.
        """
        self._limits = limits
        self._validators = validators
        self._inspector = inspector
        self._timeout = timeout
        self._pool = WorkerPool(
            "cpu",
            workers=workers,
            tasks_per_worker=_TASKS_PER_WORKER,
            preload=validators["quantize"].partition(":")[0],
            memory=memory,
        )

    def start(self) -> None:
        """Start the processes."""
        self._pool.start()

    async def check(self, model: Path, data: Path, spec: JobSpec, scratch: Path) -> JobFailure | None:
        """Check an upload.

        Args:
            model: The model's file.
            data: The samples' file.
            spec: What was asked.
            scratch: A folder of this upload alone, removed by who asks.

        Returns:
            What is wrong with it, or None.

        Raises:
            CheckerDownError: If the processes that check uploads do not stay up.
        """
        found: JobFailure | None = await self._ask(
            worker.check, model, data, spec, scratch, self._validators[kind_of(spec)], self._limits
        )
        return found

    async def inspect(self, model: Path, data: Path | None, scratch: Path) -> Preflight | JobFailure:
        """Tell what a model holds.

        Args:
            model: The model's file.
            data: Samples, for models whose inputs have open sizes.
            scratch: A folder of this upload alone, removed by who asks.

        Returns:
            What it holds, or why it cannot be told.

        Raises:
            CheckerDownError: If the processes that check uploads do not stay up.
        """
        found: Preflight | JobFailure = await self._ask(
            worker.inspect, model, data, scratch, self._inspector, self._limits
        )
        return found

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    async def _ask(self, function: Callable[..., Any], model: Path, *rest: Any) -> Any:
        for _ in range(_TRIES):
            try:
                return await self._once(function, model, *rest)
            except BrokenProcessPool:  # an idle process was killed; this upload had no part in it
                continue
        raise CheckerDownError

    async def _once(self, function: Callable[..., Any], model: Path, *rest: Any) -> Any:
        future = self._pool.schedule(function, model, *rest, timeout=self._timeout)
        try:
            return await asyncio.wrap_future(future)
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
